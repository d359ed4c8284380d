//! The command line: what can be asked for, and what the exit code says.

mod check;
mod client;
mod demo;
mod drain;
mod export;
mod healthcheck;
mod key;
mod nodes;
mod publish;
mod serve;
mod settings;
mod sign_in_link;
mod tail;
mod token;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A real-time event hub: publish over HTTP, stream over an authenticated WebSocket.
#[derive(Parser)]
#[command(version, about, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done · 1 failed · 2 wrong usage or settings · 3 the hub cannot be reached · \
4 the hub refused the credentials or a grant is missing

Start with:  pulsehub serve --data ./data --welcome";

#[derive(Subcommand)]
enum Command {
    /// Run the hub
    Serve(serve::ServeCommand),
    /// Run a hub with synthetic producers, for trying out
    Demo(demo::DemoCommand),
    /// Print a signed token for a person or a program
    Token(token::TokenCommand),
    /// Make, list and revoke API keys
    Key(key::KeyCommand),
    /// Publish events to a hub
    Publish(publish::PublishCommand),
    /// Follow events of a hub, one JSON object a line
    Tail(tail::TailCommand),
    /// Write everything the log holds as one JSON object a line
    Export(export::ExportCommand),
    /// Check settings and the log
    Check(check::CheckCommand),
    /// List the nodes of a hub and how each stands
    Nodes(nodes::NodesCommand),
    /// Send the clients of a node elsewhere
    Drain(drain::DrainCommand),
    /// Ask a hub whether it is ready, for containers
    Healthcheck(healthcheck::HealthcheckCommand),
}

/// How a command ended, other than well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandFailure {
    /// Something went wrong.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// It was asked for in a way that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The hub does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// The hub does not let us.
    #[error("{0}")]
    Refused(String),
}

impl CommandFailure {
    fn code(&self) -> u8 {
        match self {
            CommandFailure::Failed(_) => 1,
            CommandFailure::Usage(_) => 2,
            CommandFailure::Unreachable(_) => 3,
            CommandFailure::Refused(_) => 4,
        }
    }
}

/// A flag's whole number.
fn whole_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "write a whole number, such as 10".to_owned())
}

impl Cli {
    /// Does what was asked for.
    pub fn run(self) -> ExitCode {
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("pulsehub: cannot start: {error}");
                return ExitCode::FAILURE;
            }
        };
        // Several parts speak TLS; they agree on who does the arithmetic. Once is enough.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let done = runtime.block_on(async {
            match self.command {
                Command::Serve(serve) => serve.run().await,
                Command::Demo(demo) => demo.run().await,
                Command::Token(token) => token.run().await,
                Command::Key(key) => key.run().await,
                Command::Publish(publish) => publish.run().await,
                Command::Tail(tail) => tail.run().await,
                Command::Export(export) => export.run().await,
                Command::Check(check) => check.run().await,
                Command::Nodes(nodes) => nodes.run().await,
                Command::Drain(drain) => drain.run().await,
                Command::Healthcheck(healthcheck) => healthcheck.run().await,
            }
        });
        // What is still being read from standard input must not hold the end up.
        runtime.shutdown_background();
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("pulsehub: {failure}");
                ExitCode::from(failure.code())
            }
        }
    }
}
