mod bad_files;
mod bad_tables;
mod document;
mod sources;
mod supervision;

use super::*;

/// A file that is valid as it is; tests append to it.
const VALID: &str = "[listener]\naddress = \"127.0.0.1:80\"\n[upstream]\nservers = [\"a:1\"]\n";

fn path() -> &'static Path {
    Path::new("w.toml")
}

fn addr(text: &str) -> ListenAddr {
    text.parse().unwrap()
}

fn servers(list: &[&str]) -> Vec<Upstream> {
    let servers = list.iter().map(|text| Server::at(text.parse().unwrap())).collect();
    vec![Upstream::of("default", servers)]
}

fn listeners(text: &str) -> Vec<Listener> {
    vec![Listener::at(addr(text))]
}

fn valid(text: &str) -> Config {
    check(path(), text).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

fn valid_with(more: &str) -> Config {
    valid(&format!("{VALID}{more}"))
}
