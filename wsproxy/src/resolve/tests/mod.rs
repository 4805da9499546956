mod lookups;
mod server;
