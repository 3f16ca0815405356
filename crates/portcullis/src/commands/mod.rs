//! The command line. One file per command: its arguments, and `run`.
//!
//! A new command: its file, a line in [`Command`], a line in [`dispatch`].

mod agent;
mod apply;
mod backup;
mod ca;
mod check;
mod cloudstack;
mod completions;
mod confirm;
mod demo;
mod detach;
mod diff;
mod explain;
mod flows;
mod get;
mod import;
mod man;
mod reach;
mod restore;
mod run;
mod schema;
mod selftest;
mod server;
mod sim;
mod status;

use crate::failure::Failure;
use ::agent::Instance;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Security groups for the virtual machines of this host.
///
/// Portcullis judges every packet of every virtual machine by the groups that the machine's ports are
/// in. The policy is a file; enforcement is in the kernel and stays when the agent stops.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  portcullis check policy.yaml                       is this policy valid, and what does it mean?
  portcullis run --policy policy.yaml --confirm 60   enforce it; undone unless confirmed in 60 s
  portcullis confirm                                 keep it
  portcullis status                                  ports, devices, drops
  portcullis explain --port web --ingress 'tcp 10.0.0.5:40000 -> 10.0.0.9:443'
  portcullis reach --to db tcp 5432                  who can reach db on 5432?
  portcullis diff policy.yaml new.yaml               which flows would open, which would close?
  portcullis detach                                  remove enforcement
  portcullis apply -f policy.yaml --host rack1-a     put the same file onto a cluster's server

Exit codes: 0 done, 1 the answer is no, 2 usage, 3 invalid policy, 4 the system refused.";

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Run(Box<run::RunArgs>),
    Server(Box<server::ServerArgs>),
    Agent(Box<agent::AgentArgs>),
    Ca(ca::CaArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    Apply(Box<apply::ApplyArgs>),
    Get(Box<get::GetArgs>),
    Delete(Box<get::DeleteArgs>),
    Confirm(confirm::ConfirmArgs),
    Check(check::CheckArgs),
    Schema(schema::SchemaArgs),
    Status(status::StatusArgs),
    Flows(flows::FlowsArgs),
    Explain(explain::ExplainArgs),
    Reach(Box<reach::ReachArgs>),
    Diff(Box<diff::DiffArgs>),
    Detach(detach::DetachArgs),
    Selftest(selftest::SelftestArgs),
    Sim(sim::SimArgs),
    Bench(crate::bench::BenchArgs),
    Cloudstack(Box<cloudstack::CloudstackArgs>),
    Import(import::ImportArgs),
    Completions(completions::CompletionsArgs),
    #[command(hide = true)]
    Man(man::ManArgs),
}

pub(crate) fn dispatch(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Run(args) => run::run(*args),
        Command::Server(args) => server::run(*args),
        Command::Agent(args) => agent::run(*args),
        Command::Ca(args) => ca::run(args),
        Command::Backup(args) => backup::run(args),
        Command::Restore(args) => restore::run(args),
        Command::Apply(args) => apply::run(*args),
        Command::Get(args) => get::run(*args),
        Command::Delete(args) => get::delete(*args),
        Command::Confirm(args) => confirm::run(args),
        Command::Check(args) => check::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Status(args) => status::run(args),
        Command::Flows(args) => flows::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Reach(args) => reach::run(*args),
        Command::Detach(args) => detach::run(args),
        Command::Selftest(args) => selftest::run(args),
        Command::Sim(args) => sim::run(args),
        Command::Bench(args) => crate::bench::run(&args),
        Command::Completions(args) => completions::run(args),
        Command::Import(args) => import::run(args),
        Command::Man(args) => man::run(args),
        // These have exit codes of their own.
        Command::Diff(args) => return diff::run(*args),
        Command::Cloudstack(args) => return cloudstack::run(*args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            failure.exit_code()
        }
    }
}

/// Which enforcement on this host is meant; there is rarely more than one.
#[derive(Args, Clone, Debug)]
pub(crate) struct InstanceArgs {
    /// Name of the enforcement, where a host has several
    #[arg(long, default_value = "default", env = "PORTCULLIS_INSTANCE")]
    pub(crate) instance: String,

    /// Where the last good policy is kept
    #[arg(long, value_name = "DIR", default_value = Instance::STATE_ROOT, env = "PORTCULLIS_STATE_DIR")]
    pub(crate) state_dir: PathBuf,

    /// Where the agent's lock and socket are
    #[arg(long, value_name = "DIR", default_value = Instance::RUN_ROOT, env = "PORTCULLIS_RUN_DIR", hide = true)]
    pub(crate) run_dir: PathBuf,
}

impl InstanceArgs {
    pub(crate) fn instance(&self) -> Result<Instance, Failure> {
        Instance::new(&self.instance, &self.run_dir, &self.state_dir)
            .map_err(|e| Failure::Usage(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// Units give services their options so; a name of its own has what is another thing elsewhere, or is older.
    #[test]
    fn services_take_each_option_from_the_environment() {
        let cli = Cli::command();
        for service in ["server", "agent"] {
            let command = cli.find_subcommand(service).expect("it is a command");
            for argument in command.get_arguments() {
                let option = argument.get_long().expect("they have no other");
                let expected = match option {
                    "help" => continue,
                    "ca" | "cert" | "key" => format!("CLUSTER_{}", option.to_uppercase()),
                    "server" => "SERVERS".to_owned(),
                    "log-level" => "LOG".to_owned(),
                    other => other.to_uppercase().replace('-', "_"),
                };
                let variable = argument.get_env().and_then(|name| name.to_str());
                let expected = format!("PORTCULLIS_{expected}");
                assert_eq!(variable, Some(&*expected), "{service} --{option}");
            }
        }
    }
}
