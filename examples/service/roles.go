package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/microwall/microwall/clients/enforce"
	"github.com/microwall/microwall/policy"
)

// startFrontend serves customers over HTTP: it has checkout place their orders, and
// shows what cart sends of their carts.
func startFrontend(c config, identity *tls.Config, listener net.Listener) (*running, error) {
	e, err := enforce.New(enforce.Config{
		Authorizer: c.authorizer, Namespace: "boutique.frontend", TrustDomain: "boutique.example",
		ReportOnly: c.reportOnly, Events: c.events,
	})
	if err != nil {
		return nil, err
	}
	checkout, err := dial(c.next, identity)
	if err != nil {
		return nil, err
	}
	cart, err := dial(c.cart, identity)
	if err != nil {
		return nil, errors.Join(err, checkout.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /cart", func(w http.ResponseWriter, r *http.Request) {
		items, err := openCart(r.Context(), cart, r.FormValue("user"))
		if err != nil {
			http.Error(w, "the cart cannot be shown: "+status.Convert(err).Message(), http.StatusBadGateway)
			return
		}
		for item, err := range items {
			if err != nil {
				panic(http.ErrAbortHandler) // half a cart is not taken for a whole one
			}
			fmt.Fprintln(w, item.GetFields()["product_id"].GetStringValue())
		}
	})
	mux.HandleFunc("POST /cart/checkout", func(w http.ResponseWriter, r *http.Request) {
		var order structpb.Struct
		body, err := readAll(r)
		if err == nil {
			err = order.UnmarshalJSON(body)
		}
		if err != nil {
			http.Error(w, "the order is no JSON object", http.StatusBadRequest)
			return
		}
		// With the request's context: the call path is in it.
		if err := checkout.Invoke(r.Context(), "/hipstershop.CheckoutService/PlaceOrder", &order, new(structpb.Struct)); err != nil {
			http.Error(w, "the order was not placed: "+status.Convert(err).Message(), http.StatusBadGateway)
			return
		}
		fmt.Fprintln(w, "placed")
	})
	return closing(closing(serveHTTP(e, identity, listener, mux), checkout), cart), nil
}

// openCart has the items of a cart sent one by one. Whether they may be is known
// when the first one is there, or the end.
func openCart(ctx context.Context, cart *grpc.ClientConn, user string) (iter.Seq2[*structpb.Struct, error], error) {
	who, err := structpb.NewStruct(map[string]any{"user_id": user})
	if err != nil {
		return nil, err
	}
	stream, err := cart.NewStream(ctx, &grpc.StreamDesc{StreamName: "GetCart", ServerStreams: true}, "/hipstershop.CartService/GetCart")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(stream.SendMsg(who), stream.CloseSend()); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	first := new(structpb.Struct)
	err = stream.RecvMsg(first)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return func(yield func(*structpb.Struct, error) bool) {
		for item := first; !errors.Is(err, io.EOF); {
			if !yield(item, err) || err != nil {
				return
			}
			item = new(structpb.Struct)
			err = stream.RecvMsg(item)
		}
	}, nil
}

// startCart holds carts, and sends them item by item.
func startCart(c config, identity *tls.Config, listener net.Listener) (*running, error) {
	e, err := enforce.New(enforce.Config{
		Authorizer: c.authorizer, Namespace: "boutique.cart", TrustDomain: "boutique.example",
		ReportOnly: c.reportOnly, Events: c.events,
	})
	if err != nil {
		return nil, err
	}
	carts := map[string][]string{"ann": {"OLJCESPC7Z", "66VCHSJNUP"}}
	get := func(_ any, stream grpc.ServerStream) error {
		who := new(structpb.Struct)
		if err := stream.RecvMsg(who); err != nil {
			return err
		}
		for _, product := range carts[who.GetFields()["user_id"].GetStringValue()] {
			item, err := structpb.NewStruct(map[string]any{"product_id": product, "quantity": 1})
			if err != nil {
				return err
			}
			if err := stream.SendMsg(item); err != nil {
				return err
			}
		}
		return nil
	}
	return serveGRPC(e, identity, listener, &grpc.ServiceDesc{
		ServiceName: "hipstershop.CartService", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "GetCart", ServerStreams: true, Handler: get}},
	}), nil
}

// startCheckout places orders: it has payment charge the card.
func startCheckout(c config, identity *tls.Config, listener net.Listener) (*running, error) {
	e, err := enforce.New(enforce.Config{
		Authorizer: c.authorizer, Namespace: "boutique.checkout", TrustDomain: "boutique.example",
		ReportOnly: c.reportOnly, Events: c.events,
	})
	if err != nil {
		return nil, err
	}
	payment, err := dial(c.next, identity)
	if err != nil {
		return nil, err
	}
	place := func(ctx context.Context, order *structpb.Struct) (*structpb.Struct, error) {
		receipt := new(structpb.Struct)
		err := payment.Invoke(ctx, "/hipstershop.PaymentService/Charge", order, receipt)
		return receipt, err
	}
	return closing(serveGRPC(e, identity, listener, oneMethod("hipstershop.CheckoutService", "PlaceOrder", place)), payment), nil
}

// startPayment charges cards. The policy wants to know how much, and demands
// something where it is a lot.
func startPayment(c config, identity *tls.Config, listener net.Listener) (*running, error) {
	fraud := &http.Client{Transport: enforce.Transport(&http.Transport{TLSClientConfig: identity}), Timeout: 5 * time.Second}
	e, err := enforce.New(enforce.Config{
		Authorizer: c.authorizer, Namespace: "boutique.payment", TrustDomain: "boutique.example",
		ReportOnly: c.reportOnly, Events: c.events,
		Describe: func(_ context.Context, call enforce.Call) (enforce.Properties, error) {
			charge, ok := call.Message.(*structpb.Struct)
			if !ok {
				return enforce.Properties{}, nil // health, which has no amount
			}
			return enforce.Properties{Context: map[string]any{"amount": charge.GetFields()["amount"].AsInterface()}}, nil
		},
		Obligations: map[string]enforce.Obligation{
			"mfa": func(ctx context.Context, call enforce.Call, value policy.Value) (context.Context, error) {
				maxAge, ok := value.Get("max_age").Int64()
				charge, is := call.Message.(*structpb.Struct)
				if !ok || !is {
					return nil, errors.New("it says no max_age, or this is no charge")
				}
				proved := time.Unix(int64(charge.GetFields()["customer_proved_at"].GetNumberValue()), 0)
				if age := time.Since(proved); age < 0 || age > time.Duration(maxAge)*time.Second {
					return nil, fmt.Errorf("the customer proved who they are %s ago", age.Truncate(time.Second))
				}
				return ctx, nil
			},
			"notify": func(ctx context.Context, call enforce.Call, value policy.Value) (context.Context, error) {
				body, err := json.Marshal(map[string]any{"team": value.Get("team").Text(), "method": call.FullMethod})
				if err != nil {
					return nil, err
				}
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.fraud, bytes.NewReader(body))
				if err != nil {
					return nil, err
				}
				answer, err := fraud.Do(r)
				if err != nil {
					return nil, err
				}
				defer answer.Body.Close()
				if answer.StatusCode != http.StatusOK {
					return nil, fmt.Errorf("the fraud team answers %s", answer.Status)
				}
				return ctx, nil
			},
		},
	})
	if err != nil {
		return nil, err
	}
	charge := func(context.Context, *structpb.Struct) (*structpb.Struct, error) {
		return structpb.NewStruct(map[string]any{"transaction_id": "4711"})
	}
	s := serveGRPC(e, identity, listener, oneMethod("hipstershop.PaymentService", "Charge", charge))
	return closing(s, closer(fraud.CloseIdleConnections)), nil
}

type closer func()

func (c closer) Close() error { c(); return nil }

// closing also closes what a service calls others by, once it has stopped.
func closing(s *running, conn interface{ Close() error }) *running {
	stop := s.stop
	s.stop = func(ctx context.Context) error { return errors.Join(stop(ctx), conn.Close()) }
	return s
}

// maxOrder is how large an order is, in bytes.
const maxOrder = 64 << 10

func readAll(r *http.Request) ([]byte, error) {
	var b bytes.Buffer
	_, err := b.ReadFrom(http.MaxBytesReader(nil, r.Body, maxOrder))
	return b.Bytes(), err
}

// oneMethod is what a compiler makes of a .proto file: a service with one method,
// whose messages are JSON objects here.
func oneMethod(service, method string, do func(context.Context, *structpb.Struct) (*structpb.Struct, error)) *grpc.ServiceDesc {
	handle := func(_ any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		message := new(structpb.Struct)
		if err := decode(message); err != nil {
			return nil, status.Error(codes.InvalidArgument, "the message cannot be read")
		}
		next := func(ctx context.Context, message any) (any, error) { return do(ctx, message.(*structpb.Struct)) }
		return interceptor(ctx, message, &grpc.UnaryServerInfo{FullMethod: "/" + service + "/" + method}, next)
	}
	return &grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{MethodName: method, Handler: handle}}}
}
