//! Between cargo and the compiler: takes the workspace's folder out of symbol names.
//!
//! Cargo gives each crate a hash that ends up in the names of its functions, and so in the
//! object. For wsproxy-common, which lies outside of wsproxy-ebpf's own workspace, it is a hash
//! of the folder that the sources lie in, and for every crate it may change with cargo's version.
//! Name and version of the crate take its place. (`--remap-path-prefix` does not reach it.)

use std::env;
use std::ffi::OsString;
use std::io::Error;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use super::toolchain::TARGET;

/// Set for cargo when it has to start this program in front of the compiler.
const ASKED: &str = "WSPROXY_XTASK_WRAPS_RUSTC";

/// Makes cargo start this program in front of the compiler.
pub fn put_before_rustc(cargo: &mut Command) -> Result<()> {
    let this = env::current_exe().context("cannot tell where this program is")?;
    cargo.env("RUSTC_WRAPPER", this).env(ASKED, "1").env_remove("RUSTC_WORKSPACE_WRAPPER");
    Ok(())
}

/// Becomes the compiler if cargo started this program for that; returns only if it did not.
pub fn become_rustc_if_asked() -> Option<ExitCode> {
    env::var_os(ASKED)?;
    let mut arguments = env::args_os().skip(1);
    let rustc = arguments.next()?;
    let mut command = Command::new(&rustc);
    match (env::var("CARGO_PKG_NAME"), env::var("CARGO_PKG_VERSION")) {
        (Ok(name), Ok(version)) => command.args(named(arguments.collect(), &name, &version)),
        // Cargo asks the compiler about itself.
        _ => command.args(arguments),
    };
    let error: Error = command.exec();
    eprintln!("error: could not start {}: {error}", rustc.display());
    Some(ExitCode::FAILURE)
}

fn named(mut arguments: Vec<OsString>, name: &str, version: &str) -> Vec<OsString> {
    // What runs on this machine, a procedural macro say, leaves no trace in the object.
    if arguments.iter().any(|argument| argument == TARGET) {
        for argument in &mut arguments {
            if argument.as_encoded_bytes().starts_with(b"metadata=") {
                *argument = format!("metadata={name}-{version}").into();
            }
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named_of(arguments: &[&str]) -> Vec<OsString> {
        named(arguments.iter().map(OsString::from).collect(), "wsproxy-common", "0.1.0")
    }

    #[test]
    fn a_bpf_crate_is_named_by_what_it_is() {
        assert_eq!(
            named_of(&["--target", TARGET, "-C", "metadata=1f2e", "-C", "extra-filename=-3d"]),
            ["--target", TARGET, "-C", "metadata=wsproxy-common-0.1.0", "-C", "extra-filename=-3d"]
        );
    }

    #[test]
    fn a_crate_of_this_machine_stays_as_it_is() {
        let arguments = ["--crate-type", "proc-macro", "-C", "metadata=1f2e"];
        assert_eq!(named_of(&arguments), arguments);
    }
}
