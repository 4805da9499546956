//! The `wsproxy` program: arguments, configuration, runtime, run, drain.

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use wsproxy::{
    cli::{self, Command, RunArgs},
    config::{self, Config, Source},
    doctor, gateway, logging,
};

/// `EX_CONFIG` of `sysexits.h`.
const EX_CONFIG: u8 = 78;

/// At the end, how long a look-up of a name may still take before it is left alone.
const RESOLVER_PATIENCE: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    match cli::parse_or_exit().command {
        Command::Run(args) => run(&args),
        Command::Check { file } => check(&file),
        Command::Doctor { json } => match doctor::run(json, &mut io::stdout().lock()) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => fail(&error),
        },
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        // A transparent error says the same as its source.
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = inner.source();
    }
    // Nobody reads standard error: nothing is left to tell.
    let _ = writeln!(io::stderr(), "wsproxy: {text}");
    ExitCode::FAILURE
}

fn check(file: &Path) -> ExitCode {
    let text = match cli::read_file(file) {
        Ok(text) => text,
        Err(error) => {
            return fail(&io::Error::new(error.kind(), format!("{}: {error}", file.display())));
        }
    };
    match config::check(file, &text) {
        Ok(config) => {
            for warning in &config.warnings {
                let _ = writeln!(io::stderr(), "warning: {warning}");
            }
            let _ = writeln!(io::stdout(), "{}: ok", file.display());
            ExitCode::SUCCESS
        }
        Err(problems) => {
            let _ = writeln!(io::stderr(), "{problems}");
            ExitCode::from(EX_CONFIG)
        }
    }
}

fn run(args: &RunArgs) -> ExitCode {
    let config = match config::load(args, cli::read_file) {
        Ok(config) => config,
        Err(problems) => {
            let _ = writeln!(io::stderr(), "{problems}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    logging::start(&config.log);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let served = runtime.block_on(serve(config));
    // The system's resolver blocks a thread for as long as its name servers take.
    runtime.shutdown_timeout(RESOLVER_PATIENCE);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    }
}

async fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    use tokio::signal::unix::{SignalKind, signal};
    // Before anything is opened: a signal from now on is an orderly stop.
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let demo = config.source == Source::Demo;
    let starting = gateway::start(config);
    let running = tokio::select! {
        running = starting => running?,
        _ = term.recv() => return Ok(()),
        _ = int.recv() => return Ok(()),
    };
    let address = running.address;
    tracing::info!(%address, admin = running.admin.map(tracing::field::display), "listening");
    if demo {
        tracing::info!("nothing is configured: open http://{address}/ for the demo");
    }
    // Not under systemd: nothing to notify.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        _ = term.recv() => tracing::info!("SIGTERM"),
        _ = int.recv() => tracing::info!("SIGINT"),
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    running.stop().await;
    Ok(())
}
