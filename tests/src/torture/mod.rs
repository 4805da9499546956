//! The torture run's parts: what a session is to do, decided by dice
//! ([`plan`]), one end of it that does so without ever blocking ([`peer`]) over
//! a socket or TLS ([`wire`]), and both ends with what must hold of them ([`session`]).

pub mod peer;
pub mod plan;
pub mod session;
pub mod wire;
