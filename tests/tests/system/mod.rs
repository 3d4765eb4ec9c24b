//! The second ring: what needs root (or a kernel that lets users make namespaces) or tools of the
//! system besides Rust. Run with `-- --ignored`; it says what is missing.

mod limits;
mod process_1;
mod tools;
mod users;
