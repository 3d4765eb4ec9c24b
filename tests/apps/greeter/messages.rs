//! The messages of the greeter, as `prost` generates them from
//! `service Greeter { rpc SayHello (HelloRequest) returns (HelloReply); rpc Chat (stream HelloRequest) returns (stream HelloReply); }`.

#[derive(Clone, PartialEq, prost::Message)]
pub struct HelloRequest {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct HelloReply {
    #[prost(string, tag = "1")]
    pub message: String,
}
