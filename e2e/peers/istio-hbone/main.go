// istio-hbone runs Istio's own HBONE client or server as a peer for Lateen's node agents.
//
//	istio-hbone server --listen ADDR --cert F --key F --root F [--accept SPIFFE-URI]...
//	istio-hbone client --peer ADDR --forward ADDR=AUTHORITY... --cert F --key F --root F [--accept ...]
//	istio-hbone ask --peer ADDR --authority AUTHORITY... --cert F --key F --root F [--accept ...]
//
// The server ends CONNECT and connects to the authority asked for. The client takes TCP on each --forward address and
// carries every connection through one dialer, and so one tunnel, to --peer. Both print "listening on ADDR" once they
// are ready, and each refusal on standard error. `ask` prints what became of one CONNECT for each authority: "open", or
// what the dialer says.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	"istio.io/istio/pkg/hbone"
	"istio.io/istio/pkg/log"
)

type options struct {
	listen, peer               string
	cert, key, root            string
	forward, authority, accept list
}

// list is a flag that may be repeated.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "istio-hbone:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("say `server`, `client` or `ask`")

func run(args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	var o options
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	flags.StringVar(&o.listen, "listen", "", "server: where to listen")
	flags.StringVar(&o.peer, "peer", "", "client, ask: the HBONE server's address")
	flags.Var(&o.forward, "forward", "client: where to listen, and the :authority of CONNECT")
	flags.Var(&o.authority, "authority", "ask: an :authority of CONNECT")
	flags.StringVar(&o.cert, "cert", "", "certificate chain, PEM")
	flags.StringVar(&o.key, "key", "", "private key, PEM")
	flags.StringVar(&o.root, "root", "", "accepted roots, PEM")
	flags.Var(&o.accept, "accept", "a SPIFFE URI the peer may carry; none accepts all the roots signed")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	// Of its own accord the package writes to standard output, which is for what we say.
	toStderr := log.DefaultOptions()
	toStderr.OutputPaths = []string{"stderr"}
	if err := log.Configure(toStderr); err != nil {
		return err
	}
	config, err := mutualTLS(o)
	if err != nil {
		return err
	}
	switch args[0] {
	case "server":
		return serve(o, config)
	case "client":
		return client(o, config)
	case "ask":
		ask(o, config)
		return nil
	default:
		return errUsage
	}
}

func listen(address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if err == nil {
		fmt.Println("listening on", listener.Addr())
	}
	return listener, err
}

func serve(o options, config *tls.Config) error {
	listener, err := listen(o.listen)
	if err != nil {
		return err
	}
	server := hbone.NewServer()
	server.TLSConfig = config
	server.Protocols.SetHTTP2(true)
	return server.ServeTLS(listener, "", "")
}

// client tunnels every accepted connection; all share one dialer, and so its pool.
func client(o options, config *tls.Config) error {
	dialer := hbone.NewDialer(hbone.Config{ProxyAddress: o.peer, TLS: config})
	ended := make(chan error)
	for _, forward := range o.forward {
		address, authority, _ := strings.Cut(forward, "=")
		listener, err := listen(address)
		if err != nil {
			return err
		}
		go func() {
			for {
				app, err := listener.Accept()
				if err != nil {
					ended <- err
					return
				}
				go carry(dialer, app, authority)
			}
		}()
	}
	return <-ended
}

// carry tunnels one connection. What the dialer returns is a pipe that can only end both ways at once, so that an
// application that ends its half hears no more.
func carry(dialer hbone.Dialer, app net.Conn, authority string) {
	defer app.Close()
	tunnel, err := dialer.Dial("tcp", authority)
	if err != nil {
		fmt.Fprintln(os.Stderr, "istio-hbone:", err)
		return
	}
	defer tunnel.Close()
	go func() {
		_, _ = io.Copy(tunnel, app)
		_ = tunnel.Close()
	}()
	_, _ = io.Copy(app, tunnel)
}

// ask says what became of one CONNECT for each authority.
func ask(o options, config *tls.Config) {
	dialer := hbone.NewDialer(hbone.Config{ProxyAddress: o.peer, TLS: config})
	for _, authority := range o.authority {
		tunnel, err := dialer.Dial("tcp", authority)
		if err != nil {
			fmt.Println(authority, err)
			continue
		}
		fmt.Println(authority, "open")
		tunnel.Close()
	}
}

// mutualTLS is TLS 1.3 with a certificate on both sides; the peer's name is a URI, checked against --accept.
func mutualTLS(o options) (*tls.Config, error) {
	certificate, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(o.root)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", o.root)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{certificate},
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{"h2"},
		ClientAuth:   tls.RequireAnyClientCert,
		// SPIFFE certificates carry no DNS name: the chain and the URI are verified below instead.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return verify(state.PeerCertificates, roots, o.accept)
		},
	}, nil
}

func verify(chain []*x509.Certificate, roots *x509.CertPool, accept []string) error {
	if len(chain) == 0 {
		return errors.New("the peer showed no certificate")
	}
	intermediates := x509.NewCertPool()
	for _, certificate := range chain[1:] {
		intermediates.AddCert(certificate)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return err
	}
	for _, uri := range chain[0].URIs {
		if len(accept) == 0 || slices.Contains(accept, uri.String()) {
			return nil
		}
	}
	return fmt.Errorf("the peer is %v, not one of %v", chain[0].URIs, accept)
}
