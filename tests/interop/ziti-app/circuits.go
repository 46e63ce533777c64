// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/openziti/sdk-golang/ziti"
	"github.com/openziti/sdk-golang/ziti/edge"
)

func numbers(args []string, count int, what string) ([]int, error) {
	if len(args) != count {
		return nil, errors.New(what)
	}
	out := make([]int, count)
	for i, arg := range args {
		n, err := strconv.Atoi(arg)
		if err != nil || n < 0 {
			return nil, errors.New(what)
		}
		out[i] = n
	}
	return out, nil
}

// pour writes size pseudo-random bytes in messages of at most chunk and says the same to sum.
func pour(to io.Writer, seed int64, size, chunk int, sum hash.Hash) error {
	source := rand.New(rand.NewSource(seed))
	buffer := make([]byte, chunk)
	for size > 0 {
		part := buffer[:min(size, chunk)]
		source.Read(part)
		sum.Write(part)
		if _, err := to.Write(part); err != nil {
			return err
		}
		size -= len(part)
	}
	return nil
}

func sumText(sum hash.Hash) string {
	return hex.EncodeToString(sum.Sum(nil))
}

// host NAME echo: sends back what comes, then its own end. host NAME hash: reads to the end, then says what it read.
// host NAME greet BYTES: sends so many and its end, then reads to the other's.
func (a *app) host(args []string) (answer, error) {
	if len(args) < 2 {
		return nil, errors.New("host NAME echo|hash|greet [BYTES]")
	}
	size := 0
	if len(args) > 2 {
		n, err := numbers(args[2:], 1, "host NAME greet BYTES")
		if err != nil {
			return nil, err
		}
		size = n[0]
	}
	var serve func(edge.Conn) error
	switch args[1] {
	case "echo":
		serve = func(c edge.Conn) error {
			if _, err := io.Copy(c, c); err != nil {
				return err
			}
			return c.CloseWrite()
		}
	case "hash":
		serve = func(c edge.Conn) error {
			sum := sha256.New()
			n, err := io.Copy(sum, c)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c, "%d %s", n, sumText(sum))
			return err
		}
	case "greet":
		serve = func(c edge.Conn) error {
			sent, got := sha256.New(), sha256.New()
			if err := pour(c, 7, size, 32*1024, sent); err != nil {
				return err
			}
			if err := c.CloseWrite(); err != nil {
				return err
			}
			n, err := io.Copy(got, c)
			event("read", answer{"bytes": n, "sha256": sumText(got), "sent": sumText(sent)})
			return err
		}
	default:
		return nil, fmt.Errorf("host: unknown manner %s", args[1])
	}
	listener, err := a.context.Listen(args[0])
	if err != nil {
		return nil, err
	}
	if err := established(listener); err != nil {
		_ = listener.Close()
		return nil, err
	}
	a.lock.Lock()
	a.listeners[args[0]] = listener
	a.lock.Unlock()
	go func() {
		for {
			conn, err := listener.AcceptEdge()
			if err != nil {
				event("host-ended", answer{"service": args[0], "why": err.Error()})
				return
			}
			go func() {
				defer conn.Close()
				event("caller", answer{"service": args[0], "from": conn.SourceIdentifier()})
				if err := serve(conn); err != nil {
					event("caller-failed", answer{"service": args[0], "why": err.Error()})
				}
			}()
		}
	}()
	return nil, nil
}

// established waits until a router has the listener. (WaitForNEstablishedListeners of v1.2.3 may miss the moment and time
// out: "waiting for 1 listeners ..., only had 1".)
func established(listener edge.Listener) error {
	counts, known := listener.(interface{ GetEstablishedCount() uint })
	if !known {
		return errors.New("the listener tells nobody whether it is established")
	}
	for range 750 {
		if counts.GetEstablishedCount() > 0 {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.New("no router took the listener within 15 s")
}

func (a *app) unhost(args []string) (answer, error) {
	a.lock.Lock()
	defer a.lock.Unlock()
	for _, name := range args {
		if listener := a.listeners[name]; listener != nil {
			if err := listener.Close(); err != nil {
				return nil, err
			}
			delete(a.listeners, name)
		}
	}
	return nil, nil
}

func (a *app) connect(service string, timeout time.Duration) (edge.Conn, error) {
	return a.context.DialWithOptions(service, &ziti.DialOptions{ConnectTimeout: timeout})
}

const dialTime = 10 * time.Second

// dial NAME [SECONDS]: whether it can be reached.
func (a *app) dial(args []string) (answer, error) {
	timeout := dialTime
	if len(args) == 2 {
		n, err := numbers(args[1:], 1, "dial NAME [SECONDS]")
		if err != nil {
			return nil, err
		}
		timeout = time.Duration(n[0]) * time.Second
		args = args[:1]
	}
	if len(args) != 1 {
		return nil, errors.New("dial NAME [SECONDS]")
	}
	start := time.Now()
	conn, err := a.connect(args[0], timeout)
	if err != nil {
		return nil, err
	}
	_ = conn.Close()
	return answer{"ms": time.Since(start).Milliseconds()}, nil
}

// echo NAME CIRCUITS BYTES CHUNK: all circuits at once, both directions of each at once; what comes back must be what went.
func (a *app) echo(args []string) (answer, error) {
	what := "echo NAME CIRCUITS BYTES CHUNK"
	if len(args) != 4 {
		return nil, errors.New(what)
	}
	n, err := numbers(args[1:], 3, what)
	if err != nil {
		return nil, err
	}
	circuits, size, chunk := n[0], n[1], n[2]
	start := time.Now()
	failed := make(chan error, circuits)
	var all sync.WaitGroup
	for i := range circuits {
		all.Add(1)
		go func() {
			defer all.Done()
			failed <- a.echoOne(args[0], int64(i), size, chunk)
		}()
	}
	all.Wait()
	for range circuits {
		if err := <-failed; err != nil {
			return nil, err
		}
	}
	return answer{"circuits": circuits, "bytes": size, "ms": time.Since(start).Milliseconds()}, nil
}

func (a *app) echoOne(service string, seed int64, size, chunk int) error {
	conn, err := a.connect(service, dialTime)
	if err != nil {
		return err
	}
	defer conn.Close()
	sent, got := sha256.New(), sha256.New()
	written := make(chan error, 1)
	go func() {
		err := pour(conn, seed, size, chunk, sent)
		if err == nil {
			err = conn.CloseWrite()
		}
		written <- err
	}()
	n, err := io.Copy(got, conn)
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", n, err)
	}
	if err := <-written; err != nil {
		return err
	}
	if n != int64(size) || sumText(got) != sumText(sent) {
		return fmt.Errorf("sent %d bytes %s, got %d bytes %s", size, sumText(sent), n, sumText(got))
	}
	return nil
}

// connectWith takes NAME and so many numbers, and dials NAME.
func (a *app) connectWith(args []string, count int, what string) (edge.Conn, []int, error) {
	if len(args) == 0 {
		return nil, nil, errors.New(what)
	}
	n, err := numbers(args[1:], count, what)
	if err != nil {
		return nil, nil, err
	}
	conn, err := a.connect(args[0], dialTime)
	return conn, n, err
}

// upload NAME BYTES CHUNK: to a host that hashes: our end first, its answer after it.
func (a *app) upload(args []string) (answer, error) {
	conn, n, err := a.connectWith(args, 2, "upload NAME BYTES CHUNK")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	sent := sha256.New()
	if err := pour(conn, 3, n[0], n[1], sent); err != nil {
		return nil, err
	}
	if err := conn.CloseWrite(); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		return nil, err
	}
	return answer{"sent": fmt.Sprintf("%d %s", n[0], sumText(sent)), "said": string(text)}, nil
}

// download NAME BYTES: from a host that greets: its end first, ours after it.
func (a *app) download(args []string) (answer, error) {
	conn, n, err := a.connectWith(args, 1, "download NAME BYTES")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	sent, got := sha256.New(), sha256.New()
	read, err := io.Copy(got, conn)
	if err != nil {
		return nil, err
	}
	if err := pour(conn, 5, n[0], 32*1024, sent); err != nil {
		return nil, err
	}
	if err := conn.CloseWrite(); err != nil {
		return nil, err
	}
	return answer{"bytes": read, "sha256": sumText(got), "sent": sumText(sent)}, nil
}

// hold NAME: a circuit to an echoing host that is in use every 20 ms until it ends; `flow` counts, `flow-ended` says when.
func (a *app) hold(args []string) (answer, error) {
	if len(args) != 1 {
		return nil, errors.New("hold NAME")
	}
	conn, err := a.connect(args[0], dialTime)
	if err != nil {
		return nil, err
	}
	flow := &flow{conn: conn}
	a.lock.Lock()
	a.flows[args[0]] = flow
	a.lock.Unlock()
	go func() {
		err := flow.run()
		event("flow-ended", answer{"service": args[0], "why": err.Error(), "at": time.Now().UnixMilli(), "rounds": flow.count()})
	}()
	return nil, nil
}

type flow struct {
	conn   net.Conn
	lock   sync.Mutex
	rounds int
}

func (f *flow) count() int {
	f.lock.Lock()
	defer f.lock.Unlock()
	return f.rounds
}

func (f *flow) run() error {
	buffer := make([]byte, 1)
	for {
		if _, err := f.conn.Write([]byte{'x'}); err != nil {
			return err
		}
		_ = f.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.ReadFull(f.conn, buffer); err != nil {
			return err
		}
		f.lock.Lock()
		f.rounds++
		f.lock.Unlock()
		time.Sleep(20 * time.Millisecond)
	}
}

// flow NAME: how often it went round.
func (a *app) flow(args []string) (answer, error) {
	a.lock.Lock()
	defer a.lock.Unlock()
	if len(args) != 1 || a.flows[args[0]] == nil {
		return nil, errors.New("flow NAME, of one that is held")
	}
	return answer{"rounds": a.flows[args[0]].count()}, nil
}
