// Package grpcapi is the PDP's door over gRPC: microwall.v1's
// AuthorizationService and PolicyService, the standard health service and
// reflection. It is the one place where errors become status codes; see
// [Status].
package grpcapi
