// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/openziti/edge-api/rest_client_api_client/current_api_session"
	"github.com/openziti/edge-api/rest_model"
	"github.com/openziti/edge-api/rest_util"
	"github.com/openziti/identity"
	edge_apis "github.com/openziti/sdk-golang/edge-apis"
	"github.com/openziti/sdk-golang/ziti"
)

func event(name string, more answer) {
	out := answer{"event": name}
	for k, v := range more {
		out[k] = v
	}
	say(out)
}

func (a *app) tellEvents() {
	e := a.context.Events()
	service := func(name string) func(ziti.Context, *rest_model.ServiceDetail) {
		return func(_ ziti.Context, s *rest_model.ServiceDetail) { event(name, describe(s)) }
	}
	e.AddServiceAddedListener(service("added"))
	e.AddServiceChangedListener(service("changed"))
	e.AddServiceRemovedListener(service("removed"))
	e.AddAuthenticationStateFullListener(func(ziti.Context, edge_apis.ApiSession) { event("logged-in", nil) })
	e.AddAuthenticationStateUnauthenticatedListener(func(ziti.Context, edge_apis.ApiSession) { event("logged-out", nil) })
	e.AddRouterConnectedListener(func(_ ziti.Context, name, address string) {
		event("router", answer{"name": name, "address": address})
	})
	e.AddRouterDisconnectedListener(func(_ ziti.Context, name, address string) {
		event("router-lost", answer{"name": name, "address": address})
	})
}

func describe(s *rest_model.ServiceDetail) answer {
	return answer{"id": *s.ID, "name": *s.Name, "permissions": s.Permissions, "encrypted": *s.EncryptionRequired, "config": s.Config}
}

func (a *app) login([]string) (answer, error) {
	return nil, a.context.Authenticate()
}

func (a *app) identity([]string) (answer, error) {
	i, err := a.context.GetCurrentIdentity()
	if err != nil {
		return nil, err
	}
	return answer{"id": *i.ID, "name": *i.Name, "tags": i.RoleAttributes}, nil
}

func (a *app) services([]string) (answer, error) {
	if err := a.context.RefreshServices(); err != nil {
		return nil, err
	}
	all, err := a.context.GetServices()
	if err != nil {
		return nil, err
	}
	list := []answer{}
	for i := range all {
		list = append(list, describe(&all[i]))
	}
	return answer{"services": list}, nil
}

func (a *app) service(args []string) (answer, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("service NAME")
	}
	s, err := a.context.RefreshService(args[0])
	if err != nil || s == nil {
		return answer{"service": nil}, err
	}
	return answer{"service": describe(s)}, nil
}

func (a *app) terminators(args []string) (answer, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("terminators SERVICE")
	}
	list, total, err := a.context.GetServiceTerminators(args[0], 0, 100)
	if err != nil {
		return nil, err
	}
	routers := []string{}
	for _, t := range list {
		routers = append(routers, *t.RouterID)
	}
	return answer{"total": total, "routers": routers}, nil
}

// extend FILE: the next certificate for the same key, as an application does it: asks, shows what it got, writes it into
// FILE and goes on with it.
func (a *app) extend(args []string) (answer, error) {
	context, plain := a.context.(*ziti.ContextImpl)
	if len(args) != 1 || !plain {
		return nil, errors.New("extend FILE")
	}
	me, err := a.context.GetCurrentIdentity()
	if err != nil {
		return nil, err
	}
	key, err := identity.LoadKey(a.config.ID.Key)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: *me.ID}}, key)
	if err != nil {
		return nil, err
	}
	csr := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	client, session := context.CtrlClt.API.CurrentAPISession, context.CtrlClt.GetCurrentApiSession()
	authenticator := me.Authenticators.Cert.ID
	asked := current_api_session.NewExtendCurrentIdentityAuthenticatorParams()
	asked.ID = authenticator
	asked.Extend = &rest_model.IdentityExtendEnrollmentRequest{ClientCertCsr: &csr}
	given, err := client.ExtendCurrentIdentityAuthenticator(asked, session)
	if err != nil {
		return nil, rest_util.WrapErr(err)
	}
	certificate := given.Payload.Data.ClientCert
	shown := current_api_session.NewExtendVerifyCurrentIdentityAuthenticatorParams()
	shown.ID = authenticator
	shown.Extend = &rest_model.IdentityExtendValidateEnrollmentRequest{ClientCert: &certificate}
	if _, err := client.ExtendVerifyCurrentIdentityAuthenticator(shown, session); err != nil {
		return nil, rest_util.WrapErr(err)
	}
	a.config.ID.Cert = "pem:" + certificate
	a.config.ID.CA = "pem:" + given.Payload.Data.Ca
	made, err := json.Marshal(a.config)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(args[0], made, 0o600); err != nil {
		return nil, err
	}
	credentials := edge_apis.NewIdentityCredentialsFromConfig(a.config.ID)
	a.context.SetCredentials(credentials)
	// The SDK takes credentials at a full login only, which ends its router connections and what flows over them. So the
	// connections to the controller get the certificate here.
	transport := context.CtrlClt.HttpTransport
	transport.TLSClientConfig.Certificates = credentials.TlsCerts()
	transport.CloseIdleConnections()
	return nil, nil
}
