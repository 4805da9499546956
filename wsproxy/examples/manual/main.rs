//! Writes what is installed beside the program and follows from its command line and its keys: man
//! pages, completions for shells, the example of a configuration. Not part of the program, which
//! stays smaller without it; run by `cargo xtask dist`.

mod configuration;

use std::{fs, io, path::Path, process::ExitCode};

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use wsproxy::{cli::Cli, config};

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: manual FOLDER");
        return ExitCode::from(64);
    };
    match write(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manual: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> io::Result<()> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let mut command = Cli::command();
    command.build();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Cli::command(), "wsproxy", &completions)?;
    }
    pages(&command, "wsproxy", &man)?;
    fs::write(man.join("wsproxy.toml.5"), configuration::page())?;
    fs::write(folder.join("example.toml"), config::example())
}

/// The page of a command, and those of its subcommands.
fn pages(command: &Command, name: &str, folder: &Path) -> io::Result<()> {
    let shown: &'static str = name.replace('-', " ").leak();
    let mut text = Vec::new();
    // Without a date: pages of one version are equal, whenever they are made.
    let named = command.clone().name(&*name.to_owned().leak()).bin_name(shown);
    clap_mangen::Man::new(named)
        .date("")
        .source(format!("wsproxy {}", env!("CARGO_PKG_VERSION")))
        .manual("wsproxy")
        .render(&mut text)?;
    fs::write(folder.join(format!("{name}.1")), text)?;
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        pages(inner, &format!("{name}-{}", inner.get_name()), folder)?;
    }
    Ok(())
}
