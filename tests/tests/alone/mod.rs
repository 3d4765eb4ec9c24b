//! Promises that are kept when the whole machine is busy with one of them: each of these tests runs alone. They are in
//! one place, and begin one after the other, so that nobody else waits for them time and again.

mod floods;
mod handover;
mod idle_https;
mod load;
mod websockets;
