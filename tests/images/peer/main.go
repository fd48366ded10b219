// Peer is the two ends of the connections that tests of networks make.
//
//	peer serve NAME NETWORK:ADDRESS...   answers everybody "NAME sees CLIENT", on tcp and udp
//	peer ask NETWORK ADDRESS             prints the answer, asking again for a few seconds
//	peer once NETWORK ADDRESS            asks once, and waits a second
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

func main() {
	var err error
	switch args := os.Args[1:]; {
	case len(args) >= 3 && args[0] == "serve":
		err = serve(args[1], args[2:])
	case len(args) == 3 && args[0] == "ask":
		for end := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if err = ask(args[1], args[2]); err == nil || time.Now().After(end) {
				break
			}
		}
	case len(args) == 3 && args[0] == "once":
		err = ask(args[1], args[2])
	default:
		err = errors.New("serve, ask or once")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func serve(name string, on []string) error {
	failed := make(chan error)
	for _, spec := range on {
		network, addr, _ := strings.Cut(spec, ":")
		answer := func(client net.Addr) []byte {
			host, _, _ := net.SplitHostPort(client.String())
			return []byte(name + " sees " + host + "\n")
		}
		if network == "udp" {
			c, err := net.ListenPacket(network, addr)
			if err != nil {
				return err
			}
			go func() {
				for b := make([]byte, 100); ; {
					_, from, err := c.ReadFrom(b)
					if err == nil {
						_, err = c.WriteTo(answer(from), from)
					}
					if err != nil {
						failed <- err
					}
				}
			}()
			continue
		}
		l, err := net.Listen(network, addr)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					failed <- err
					return
				}
				_, _ = c.Write(answer(c.RemoteAddr()))
				c.Close()
			}
		}()
	}
	fmt.Println("serving")
	return <-failed
}

func ask(network, addr string) error {
	c, err := net.DialTimeout(network, addr, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if network == "udp" {
		if _, err := c.Write([]byte("?")); err != nil {
			return err
		}
		b := make([]byte, 100)
		n, err := c.Read(b)
		if err != nil {
			return err
		}
		_, err = os.Stdout.Write(b[:n])
		return err
	}
	b, err := io.ReadAll(c)
	if err == nil && len(b) == 0 {
		err = errors.New("no answer")
	}
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(b)
	return err
}
