//! wsproxy.
fn main() {}
