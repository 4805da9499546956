//! What a request says about itself, and what of it the next server gets to hear: the client's
//! address behind trusted proxies, the headers that this hop adds, those that the configuration
//! changes. Pure: no socket, no clock.

mod client;
mod facts;
mod headers;
mod origin;

pub use client::{ClientKey, client_of};
pub use facts::{Connection, Facts, host_of, request_id};
pub use headers::{Headers, Rendered, cookie, prepare_request, query_value};
pub use origin::lets_in;
