"""The JSON gateway: etcd's v3 API for those who speak HTTP and JSON, on the client port under `/v3/`.

A request's JSON becomes the bytes of the message (`decode`), these go to the very handler that serves gRPC
(`local_calls`), and the bytes of its answer become JSON (`encode`): there is no second implementation of any
RPC, and one that is added appears here by its line in `paths`.

Paths, texts and forms are those of etcd 3.7.1, that is of grpc-gateway 2.29 and Go's protojson with etcd's
options. protobuf's own `json_format` is not used: it knows other error texts, refuses what Go takes (numbers
in other forms, unknown enum names) and takes what Go refuses, and one large body or answer would hold the
loop. Here both directions are generators that yield between slices.

| module | what it decides |
| --- | --- |
| `paths` | which path is which RPC |
| `fields` | messages as tables, made from the descriptors |
| `json_values` | where a JSON value ends, and what Go's encoding/json says of one that is none |
| `json_tokens` | what stands in it, as protojson reads it |
| `decode`, `encode` | JSON to message bytes and back |
| `metadata` | which HTTP headers become metadata, and the deadline |
| `status` | errors as JSON, their HTTP status |
| `exchanges`, `streams` | one request and its call, unary or stream |
| `gateway` | which of these a request gets |
| `handshake`, `websocket` | streams over a websocket |
"""
