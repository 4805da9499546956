//! What the tests of wsproxy share: the models of the splice protocol and of
//! the change to the packet path, and
//! sessions over real sockets.

pub mod beyond;
pub mod frames;
pub mod link;
pub mod model;
pub mod model_switch;
pub mod namespaces;
pub mod routed;
pub mod sessions;
pub mod smol;
pub mod torture;
