//! The `wsproxy` program: arguments, configuration, runtime, run, drain.

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use wsproxy::{
    admin::client,
    capacity::{self, Host, Plan},
    cli::{self, Command, ConfigCommand, DoctorArgs},
    config::{self, Config, RunArgs, Source},
    doctor,
    gateway::{self, Opened},
    logging, nginx,
    privileges::{self, Privileges},
    probe::{self, ProbeArgs},
    service, sys, telemetry,
    top::{self, TopArgs},
};

/// `EX_CONFIG` of `sysexits.h`.
const EX_CONFIG: u8 = 78;

/// `EX_DATAERR` of `sysexits.h`.
const EX_DATAERR: u8 = 65;

/// At the end, how long a look-up of a name may still take before it is left alone.
const RESOLVER_PATIENCE: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    match cli::parse_or_exit().command {
        Command::Run(args) => run(&args),
        Command::Check { file } => check(&file),
        Command::Config { what } => show_config(what),
        Command::ImportNginx { file, verbose } => import_nginx(&file, verbose),
        Command::Probe(args) => run_probe(args),
        Command::Ask(ask) => run_ask(&ask),
        Command::Top(args) => run_top(args),
        Command::Doctor(args) => match examine(args) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => fail(&error),
        },
    }
}

/// What this machine can do, or whether so many sessions fit on it.
fn examine(args: DoctorArgs) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    let Some(sessions) = args.sessions else { return doctor::run(args.json, &mut out) };
    let plan = Plan { sessions, servers: args.servers, tls: args.tls };
    let host = Host::this(capacity::descriptors_needed(&plan));
    capacity::run(&plan, &host, args.json, &mut out)
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
    let checked = config::check(file, &text);
    let checked = checked.and_then(|config| {
        let (warnings, user) = (config.warnings.clone(), privileges::check(&config));
        gateway::try_files(config).map(|()| (warnings, user))
    });
    match checked {
        Ok((_, Err(error))) => {
            let _ = writeln!(io::stderr(), "{}: {error}", file.display());
            ExitCode::from(EX_CONFIG)
        }
        Ok((warnings, Ok(()))) => {
            for warning in &warnings {
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
    // Until there is somebody to hear them: a signal from now on is an orderly stop.
    if let Err(error) = sys::signals::hold() {
        return fail(&error);
    }
    let demo = config.source == Source::Demo;
    let (opened, privileges) = match prepare(config) {
        Ok(prepared) => prepared,
        Err(error) => return fail(error.as_ref()),
    };
    // For what happens beside connections: those have threads of their own.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let exporting = telemetry::start(runtime.handle());
    let served = runtime.block_on(serve(opened, privileges, demo, args));
    exporting.stop();
    // The system's resolver blocks a thread for as long as its name servers take.
    runtime.shutdown_timeout(RESOLVER_PATIENCE);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    }
}

/// Opens what takes privileges, and gives up those that nothing later needs: before the first
/// thread begins, for each has what the one had that began it.
fn prepare(config: Config) -> Result<(Opened, Privileges), Box<dyn std::error::Error>> {
    let process = config.process.clone();
    let opened = gateway::open(config)?;
    let privileges = privileges::reduce(&process, &opened.needs())?;
    Ok((opened, privileges))
}

/// Prints an example or the schema of a configuration.
fn show_config(what: ConfigCommand) -> ExitCode {
    let text = match what {
        ConfigCommand::Example => config::example(),
        ConfigCommand::Schema => format!("{:#}\n", config::schema()),
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// The file on standard output, what is to be known of it on standard error.
fn import_nginx(file: &Path, verbose: bool) -> ExitCode {
    let text = match cli::read_file(file) {
        Ok(text) => text,
        Err(error) => {
            return fail(&io::Error::new(error.kind(), format!("{}: {error}", file.display())));
        }
    };
    let base = file.parent().unwrap_or(Path::new("."));
    let files = |name: &str| cli::read_included(base, name);
    match nginx::import(&files, &file.display().to_string(), &text) {
        Ok(import) => {
            for note in &import.notes {
                if verbose || note.severity != nginx::Severity::Ignored {
                    let _ = writeln!(io::stderr(), "{note}");
                }
            }
            match io::stdout().lock().write_all(import.toml.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            }
        }
        Err(broken) => {
            let _ = writeln!(io::stderr(), "{broken}");
            ExitCode::from(EX_DATAERR)
        }
    }
}

fn run_ask(ask: &client::Ask) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(client::ask(ask, &mut io::stdout().lock())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn run_top(args: TopArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(top::run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn run_probe(args: ProbeArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let outcome = runtime.block_on(probe::probe(args, &mut io::stdout().lock()));
    runtime.shutdown_timeout(RESOLVER_PATIENCE);
    match outcome {
        Ok(outcome) => ExitCode::from(outcome.exit_status()),
        Err(error) => fail(&error),
    }
}

async fn serve(
    opened: Opened,
    privileges: Privileges,
    demo: bool,
    args: &RunArgs,
) -> Result<(), Box<dyn std::error::Error>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (mut hup, mut usr1) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined1())?);
    sys::signals::let_come()?;
    let starting = gateway::start(opened, privileges);
    let mut running = tokio::select! {
        running = starting => running?,
        _ = term.recv() => return Ok(()),
        _ = int.recv() => return Ok(()),
    };
    let address = running.address.map(tracing::field::display);
    tracing::info!(address, admin = running.admin.map(tracing::field::display), "listening");
    if let Some(address) = running.address.filter(|_| demo) {
        tracing::info!("nothing is configured: open http://{address}/ for the demo");
    }
    service::ready();
    let _watched = service::watch(running.heart().await);
    loop {
        tokio::select! {
            _ = term.recv() => { tracing::info!("SIGTERM"); break }
            _ = int.recv() => { tracing::info!("SIGINT"); break }
            _ = hup.recv() => {
                // What is wrong is in the log.
                let _ = reload(&running, args).await;
            }
            wanted = running.order() => match wanted {
                gateway::OperatorOrder::Stop => { tracing::info!("an operator wants a stop"); break }
                gateway::OperatorOrder::Reload(answer) => {
                    // Who asked may be gone.
                    let _ = answer.send(reload(&running, args).await);
                }
            },
            _ = usr1.recv() => running.reopen_logs(),
        }
    }
    service::stopping(running.longest_stop());
    let cut_off = running.cut_off();
    // Whoever asks twice does not want to wait for the sessions.
    tokio::select! {
        () = running.stop() => return Ok(()),
        _ = term.recv() => tracing::warn!("SIGTERM again: sessions are cut off"),
        _ = int.recv() => tracing::warn!("SIGINT again: sessions are cut off"),
    }
    cut_off();
    Ok(())
}

/// Takes the configuration as it is now, or says why not and leaves everything as it is.
async fn reload(running: &gateway::Running, args: &RunArgs) -> Result<(), String> {
    service::reloading();
    let taken = match config::load(args, cli::read_file) {
        Ok(config) => {
            for warning in &config.warnings {
                tracing::warn!("{warning}");
            }
            running.reload(config).await.map_err(|error| error.to_string())
        }
        Err(problems) => Err(problems.to_string()),
    };
    match &taken {
        Ok(()) => tracing::info!("configuration reloaded"),
        Err(problems) => {
            running.reload_failed();
            for problem in problems.lines() {
                tracing::error!("{problem}");
            }
            tracing::error!("the configuration was not reloaded; the old one stays in force");
        }
    }
    service::ready();
    taken
}
