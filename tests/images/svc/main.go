// Command svc is a service for tests: what it does is said by its arguments,
// one after the other. It needs nothing of the image that it runs in.
//
//	serve           answers every connection to the sockets it was passed with a line, for ever
//	listen=ADDR     answers every connection to HOST:PORT or INTERFACE:PORT (its first IPv4 address) with a line, for ever
//	wait=DURATION   waits
//	notify=AFTER    says READY=1 after a duration
//	watchdog=N      sends N keep-alives in time, then no more
//	reload          says "reloaded" at every SIGHUP, for ever
//	exit=N          ends
//	answer=ADDR     answers every connection to HOST:PORT with the content of /v, and goes on at once
//	signal=N        sends itself a signal
//	eat=MIB         allocates memory, and writes to it
//	read=FILE       ends with status 66 if it cannot; $NAME in it is from the environment
//	touch=FILE      makes a file
//	absent=FILE     ends with status 1 if it is there
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	for _, a := range os.Args[1:] {
		verb, value, _ := strings.Cut(a, "=")
		if err := do(verb, value); err != nil {
			fmt.Fprintln(os.Stderr, "svc:", err)
			os.Exit(70)
		}
	}
}

func do(verb, value string) error {
	switch verb {
	case "serve":
		return serve()
	case "listen":
		return listen(value)
	case "wait":
		d, err := time.ParseDuration(value)
		time.Sleep(d)
		return err
	case "notify":
		d, err := time.ParseDuration(value)
		if err != nil {
			return err
		}
		time.Sleep(d)
		return notify("READY=1\nSTATUS=serving")
	case "watchdog":
		return watchdog(value)
	case "reload":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGHUP)
		fmt.Println("waiting")
		for range c {
			fmt.Println("reloaded")
		}
	case "exit":
		n, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		os.Exit(n)
	case "answer":
		l, err := net.Listen("tcp", value)
		if err != nil {
			return err
		}
		go say(l)
	case "signal":
		n, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		return syscall.Kill(os.Getpid(), syscall.Signal(n))
	case "eat":
		n, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		for b := make([]byte, n<<20); n > 0; n-- {
			b[n<<20-1] = 1
		}
	case "read":
		if _, err := os.ReadFile(os.ExpandEnv(value)); err != nil {
			fmt.Fprintln(os.Stderr, "svc:", err)
			os.Exit(66)
		}
	case "touch":
		return os.WriteFile(value, nil, 0o644)
	case "absent":
		if _, err := os.Stat(value); err == nil {
			fmt.Println(value, "is there")
			os.Exit(1)
		}
	default:
		return fmt.Errorf("unknown %q", verb)
	}
	return nil
}

func listen(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if i, err := net.InterfaceByName(host); err == nil {
		addrs, err := i.Addrs()
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
				addr = net.JoinHostPort(n.IP.String(), port)
				break
			}
		}
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	accept(l, 0)
	return nil
}

func notify(text string) error {
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(text))
	return err
}

func watchdog(value string) error {
	usec, err := strconv.Atoi(os.Getenv("WATCHDOG_USEC"))
	if err != nil || os.Getenv("WATCHDOG_PID") != strconv.Itoa(os.Getpid()) {
		return fmt.Errorf("WATCHDOG_USEC=%q WATCHDOG_PID=%q", os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID"))
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		return err
	}
	for i := range n {
		if err := notify("WATCHDOG=1"); err != nil {
			return err
		}
		fmt.Println("alive", i)
		time.Sleep(time.Duration(usec) * time.Microsecond / 3)
	}
	fmt.Println("silent")
	select {}
}

func serve() error {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 1 || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return fmt.Errorf("no sockets were passed: LISTEN_FDS=%q LISTEN_PID=%q, this is %d", os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_PID"), os.Getpid())
	}
	for i := range n {
		f := os.NewFile(uintptr(3+i), "socket")
		if l, err := net.FileListener(f); err == nil {
			go accept(l, i)
			continue
		}
		c, err := net.FilePacketConn(f)
		if err != nil {
			return err
		}
		go answer(c, i)
	}
	fmt.Println("serving", n)
	select {}
}

func accept(l net.Listener, i int) {
	for {
		c, err := l.Accept()
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Fprintf(c, "socket %d of %s\n", i, os.Getenv("AC_APP_NAME"))
		c.Close()
	}
}

func say(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			fmt.Println(err)
			return
		}
		b, err := os.ReadFile("/v")
		if err != nil {
			b = []byte(err.Error())
		}
		_, _ = c.Write(b)
		c.Close()
	}
}

func answer(c net.PacketConn, i int) {
	buf := make([]byte, 64)
	for {
		_, from, err := c.ReadFrom(buf)
		if err != nil {
			fmt.Println(err)
			return
		}
		_, _ = c.WriteTo(fmt.Appendf(nil, "datagram %d of %s\n", i, os.Getenv("AC_APP_NAME")), from)
	}
}
