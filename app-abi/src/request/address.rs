//! Addresses, as they cross the line.

use super::Address;
use crate::abi::FfiAddress;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

impl From<FfiAddress> for Address {
    fn from(address: FfiAddress) -> Self {
        let [a, b, c, d, ..] = address.ip;
        match address.family {
            4 => Self::Tcp(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), address.port).into()),
            6 => {
                let ip = Ipv6Addr::from(address.ip);
                let (flow, scope) = (address.flow_info, address.scope_id);
                Self::Tcp(SocketAddrV6::new(ip, address.port, flow, scope).into())
            }
            _ => Self::Unix,
        }
    }
}

impl From<Address> for FfiAddress {
    fn from(address: Address) -> Self {
        let mut ffi = Self { family: 0, port: 0, ip: [0; 16], flow_info: 0, scope_id: 0 };
        if let Address::Tcp(socket) = address {
            ffi.port = socket.port();
            match socket.ip() {
                IpAddr::V4(ip) => {
                    ffi.family = 4;
                    ffi.ip[..4].copy_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    ffi.family = 6;
                    ffi.ip = ip.octets();
                }
            }
            if let SocketAddr::V6(socket) = socket {
                ffi.flow_info = socket.flowinfo();
                ffi.scope_id = socket.scope_id();
            }
        }
        ffi
    }
}
