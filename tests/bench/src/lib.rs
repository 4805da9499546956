//! wsproxy beside its peers: load, upstream, contenders, and what was measured.

pub mod awake;
pub mod contender;
pub mod cross_check;
pub mod gateway;
pub mod instructions;
pub mod load;
pub mod machine;
pub mod opening;
pub mod packet;
pub mod pattern;
pub mod place;
pub mod poll;
pub mod pure;
pub mod report;
pub mod results;
pub mod run;
pub mod scenario;
pub mod supervision;
pub mod upstream;
