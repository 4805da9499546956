//! What the tests of wsproxy share: the model of the splice protocol, and
//! sessions over real sockets.

pub mod frames;
pub mod link;
pub mod model;
pub mod namespaces;
pub mod routed;
pub mod sessions;
pub mod smol;
pub mod torture;
