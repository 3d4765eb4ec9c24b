//! What an app needs of its host: the host checks it before it calls anything else.

use crate::abi::{
    DatabankServiceRef, DispatchServiceRef, InfoServiceRef, ListenerServiceRef, LockServiceRef, RequestServiceRef,
    Required, SERVICE_DATABANK, SERVICE_DISPATCH, SERVICE_INFO, SERVICE_LISTENER, SERVICE_LOCK, SERVICE_REQUEST,
    SERVICE_TRACE, TraceServiceRef,
};
use abi_stable::{
    StableAbi,
    std_types::{RSlice, RStr},
};

pub(crate) extern "C" fn required_host() -> RSlice<'static, Required> {
    const REQUIRED: &[Required] = &[
        Required {
            id: SERVICE_INFO,
            minor: 0,
            name: RStr::from_str("info"),
            layout: <InfoServiceRef as StableAbi>::LAYOUT,
        },
        Required {
            id: SERVICE_REQUEST,
            minor: 0,
            name: RStr::from_str("request"),
            layout: <RequestServiceRef as StableAbi>::LAYOUT,
        },
        Required {
            id: SERVICE_DATABANK,
            minor: 0,
            name: RStr::from_str("databank"),
            layout: <DatabankServiceRef as StableAbi>::LAYOUT,
        },
        Required {
            id: SERVICE_DISPATCH,
            minor: 0,
            name: RStr::from_str("dispatch"),
            layout: <DispatchServiceRef as StableAbi>::LAYOUT,
        },
        Required {
            id: SERVICE_LISTENER,
            minor: 0,
            name: RStr::from_str("listener"),
            layout: <ListenerServiceRef as StableAbi>::LAYOUT,
        },
        Required {
            id: SERVICE_LOCK,
            minor: 0,
            name: RStr::from_str("lock"),
            layout: <LockServiceRef as StableAbi>::LAYOUT,
        },
        Required {
            id: SERVICE_TRACE,
            minor: 0,
            name: RStr::from_str("trace"),
            layout: <TraceServiceRef as StableAbi>::LAYOUT,
        },
    ];
    RSlice::from_slice(REQUIRED)
}
