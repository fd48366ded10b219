package main
import ("os";"github.com/rkt-systemd/rkt/stage1/filtergen")
func main(){ for n,p:=range map[string]filtergen.Policy{"pod":filtergen.Pod(),"app":filtergen.App()}{ q,err:=filtergen.Compile(p); if err!=nil{panic(err)}; println(n,len(q)); os.WriteFile(os.Args[1]+"/"+n+".bpf",q.Marshal(),0644)}}
