// SPDX-License-Identifier: Apache-2.0

// Command ziti-app is a program for a Ziti network, written with the public SDK alone: what a stranger would write.
// Tests drive it: a command is a line of words on standard input, every answer and event a JSON line on standard output.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/openziti/sdk-golang/ziti"
	"github.com/openziti/sdk-golang/ziti/edge"
	"github.com/openziti/sdk-golang/ziti/enroll"
)

const usage = `usage: ziti-app enroll [-rsa] TOKEN-FILE IDENTITY-FILE
       ziti-app run [-refresh 1s] [-types NAME,NAME] IDENTITY-FILE
`

var output sync.Mutex

// say writes one line; fields hold what is plain JSON.
func say(fields map[string]any) {
	line, err := json.Marshal(fields)
	if err != nil {
		line, _ = json.Marshal(map[string]any{"error": err.Error()})
	}
	output.Lock()
	defer output.Unlock()
	fmt.Println(string(line))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "ziti-app:", err)
	os.Exit(1)
}

func enrol(args []string) error {
	flags := flag.NewFlagSet("enroll", flag.ExitOnError)
	rsa := flags.Bool("rsa", false, "an RSA key instead of P-384")
	_ = flags.Parse(args)
	if flags.NArg() != 2 {
		return fmt.Errorf("enroll: two files are needed")
	}
	text, err := os.ReadFile(flags.Arg(0))
	if err != nil {
		return err
	}
	claims, token, err := enroll.ParseToken(string(text))
	if err != nil {
		return err
	}
	request := enroll.EnrollmentFlags{Token: claims, JwtToken: token, JwtString: string(text)}
	algorithm := "EC"
	if *rsa {
		algorithm = "RSA"
	}
	if err := request.KeyAlg.Set(algorithm); err != nil {
		return err
	}
	config, err := enroll.Enroll(request)
	if err != nil {
		return err
	}
	made, err := json.Marshal(config)
	if err != nil {
		return err
	}
	return os.WriteFile(flags.Arg(1), made, 0o600)
}

// app is one context of the SDK and what a test has open on it.
type app struct {
	config  *ziti.Config
	context ziti.Context

	lock      sync.Mutex // both below
	listeners map[string]edge.Listener
	flows     map[string]*flow
}

type answer map[string]any

// commands run beside each other; each answers once.
var commands = map[string]func(*app, []string) (answer, error){
	"login":       (*app).login,
	"identity":    (*app).identity,
	"services":    (*app).services,
	"service":     (*app).service,
	"terminators": (*app).terminators,
	"extend":      (*app).extend,
	"host":        (*app).host,
	"unhost":      (*app).unhost,
	"dial":        (*app).dial,
	"echo":        (*app).echo,
	"upload":      (*app).upload,
	"download":    (*app).download,
	"hold":        (*app).hold,
	"flow":        (*app).flow,
}

func run(args []string) error {
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	refresh := flags.Duration("refresh", time.Minute, "how often services are asked for")
	types := flags.String("types", "all", "configurations that services come with")
	_ = flags.Parse(args)
	if flags.NArg() != 1 {
		return fmt.Errorf("run: an identity file is needed")
	}
	config, err := ziti.NewConfigFromFile(flags.Arg(0))
	if err != nil {
		return err
	}
	config.ConfigTypes = strings.Split(*types, ",")
	context, err := ziti.NewContextWithOpts(config, &ziti.Options{RefreshInterval: *refresh, SessionRefreshInterval: *refresh})
	if err != nil {
		return err
	}
	a := &app{config: config, context: context, listeners: map[string]edge.Listener{}, flows: map[string]*flow{}}
	a.tellEvents()
	input := bufio.NewScanner(os.Stdin)
	for number := 1; input.Scan(); number++ {
		words := strings.Fields(input.Text())
		if len(words) == 0 {
			continue
		}
		go func() {
			out := answer{}
			var err error
			if command, known := commands[words[0]]; known {
				var got answer
				if got, err = command(a, words[1:]); err == nil && got != nil {
					out = got
				}
			} else {
				err = fmt.Errorf("unknown command %s", words[0])
			}
			if err != nil {
				out["error"] = err.Error()
			}
			out["re"] = number
			say(out)
		}()
	}
	context.Close()
	return nil
}

func main() {
	args := os.Args[1:]
	var err error
	switch {
	case len(args) > 0 && args[0] == "enroll":
		err = enrol(args[1:])
	case len(args) > 0 && args[0] == "run":
		err = run(args[1:])
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fail(err)
	}
}
