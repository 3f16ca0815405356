//! `schema`: the policy file's JSON schema.

use crate::failure::Failure;
use clap::Args;

/// Print the policy file's JSON schema, for editors
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portcullis schema > policy.schema.json
  # then, as the first line of the policy, for editors that know the YAML language server:
  # yaml-language-server: $schema=policy.schema.json")]
pub(crate) struct SchemaArgs {}

pub(crate) fn run(SchemaArgs {}: SchemaArgs) -> Result<(), Failure> {
    crate::output::say(policyfile::SCHEMA);
    Ok(())
}
