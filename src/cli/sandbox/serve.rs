//! `sandbox serve`: the control plane alone.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::ServeArgs;
use super::{client_of, data_dir, log_filter, show_path};
use crate::cli::asynchronous;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::observe::logging::{self, LogOptions, StderrLines};
use crate::sandbox::{Server, ServerOptions};

/// Runs the server until it is told to stop.
pub(super) fn run(context: &Context, args: &ServeArgs) -> Outcome {
    let data_dir = data_dir(context, &args.common)?;
    let stderr = if std::io::stderr().is_terminal() {
        StderrLines::Human { colour: context.ui.colour_on_stderr() }
    } else {
        StderrLines::Json
    };
    let _log = logging::init(LogOptions {
        filter: log_filter(context).to_owned(),
        redactor: context.redactor.clone(),
        stderr,
        file: None,
    })?;
    let options = ServerOptions {
        allow_remote: args.allow_remote,
        keep_jobs: (args.keep_jobs > 0)
            .then(|| Duration::from_hours(24 * u64::from(args.keep_jobs))),
        ..ServerOptions::new(data_dir.clone(), args.listen)
    };
    asynchronous::long()?.block_on(async {
        let mut stop = StopSignals::listen()?;
        let mut server = Server::start(options).await?;
        client_of(context, &server);
        if args.common.json {
            let value = json!({"url": server.url(), "data_dir": data_dir,
                               "pid": std::process::id()});
            context.ui.out(&value.to_string())?;
        } else {
            context.ui.out(&format!("Sandbox: {}", server.url()))?;
            context.ui.out(&format!("Data:    {}", show_path(&data_dir)))?;
            context
                .ui
                .note("`panorama-gateway sandbox code` makes a pairing code; Ctrl-C stops it");
        }
        if args.allow_remote && !args.listen.ip().is_loopback() {
            context.ui.warn(
                "other machines reach it, unencrypted: whoever has its admin token can run \
                 commands on every machine that is paired with it",
            );
        }
        let broken = tokio::select! {
            // Cancel safe, both.
            () = stop.recv() => None,
            ended = server.failed() => Some(ended),
        };
        server.shutdown().await;
        match broken {
            None => Ok(Exit::Done),
            Some(ended) => Err(Failure::new("the sandbox broke").cause(format!("{ended:?}"))),
        }
    })
}

/// SIGINT and SIGTERM.
#[derive(Debug)]
pub(super) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// From now on they no longer kill this process.
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::new("could not listen to signals").cause(error.to_string())
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// The next of them. Cancel safe.
    pub(super) async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
