//! What policies the agent knows, and which it keeps.
//!
//! Place on the line: policy file -> **inventory** -> compile.
//! Knows nothing of: the text's syntax, devices, the plane.

use super::{Agent, Effect, Exit, Policy, PolicyText};
use crate::report::{Report, Source};
use model::Revision;
use std::sync::Arc;

impl Agent {
    /// The newest valid policy, as its file says it.
    pub fn policy(&self) -> Option<(Revision, Arc<[u8]>)> {
        let policy = self.policy.as_ref()?;
        Some((policy.revision, policy.text.clone()))
    }

    pub(super) fn policy_read(&mut self, read: PolicyText, effects: &mut Vec<Effect>) {
        self.policy_errors.clear();
        // Numbers go on where the last agent stopped; the same text keeps its number.
        let last = self.policy.as_ref().map(|p| (p.revision, &p.text));
        let cached = self
            .cached
            .as_ref()
            .map(|(c, revision)| (*revision, &c.text));
        let revision = match last.or(cached) {
            Some((revision, text)) if *text == read.text => revision,
            Some((revision, _)) => Revision {
                commit: revision.commit + 1,
                ..revision
            },
            None => Revision {
                epoch: 0,
                commit: 1,
            },
        };
        let known = self.policy.as_ref().is_some_and(|p| p.revision == revision);
        if known {
            if let Some(policy) = &mut self.policy {
                policy.source = Source::File;
            }
            return;
        }
        let mut inventory = read.inventory;
        inventory.revision = revision;
        effects.push(Effect::Report(Report::PolicyRead {
            revision,
            ports: inventory.ports.len(),
        }));
        self.adopt(Policy {
            revision,
            source: Source::File,
            text: read.text,
            inventory,
        });
    }

    /// Keeps what is in force. At the start nothing is: then the cached policy, loudly, or nothing.
    pub(super) fn policy_invalid(&mut self, errors: Vec<String>, effects: &mut Vec<Effect>) {
        self.policy_errors.clone_from(&errors);
        let invalid = |enforced| {
            Effect::Report(Report::PolicyInvalid {
                errors: errors.clone(),
                enforced,
            })
        };
        if let Some(policy) = &self.policy {
            effects.push(invalid(Some(policy.revision)));
            return;
        }
        match self.cached.take() {
            Some((cached, revision)) => {
                effects.push(invalid(Some(revision)));
                effects.push(Effect::Report(Report::EnforcingCached { revision }));
                let mut inventory = cached.inventory;
                inventory.revision = revision;
                self.adopt(Policy {
                    revision,
                    source: Source::Cache,
                    text: cached.text,
                    inventory,
                });
            }
            None => {
                effects.push(invalid(None));
                self.end(Exit::NoPolicy(errors.clone()), effects);
            }
        }
    }

    pub(super) fn adopt(&mut self, policy: Policy) {
        self.policy = Some(policy);
        self.compiled = None;
        self.stale = true;
    }

    /// Only what is enforced and stands is worth coming back to.
    pub(super) fn save(&self, effects: &mut Vec<Effect>) {
        if let (Some(policy), Some(enforced)) = (&self.policy, &self.enforced)
            && policy.revision == enforced.revision
            && policy.source == Source::File
        {
            effects.push(Effect::SaveCache {
                revision: policy.revision,
                text: policy.text.clone(),
            });
        }
    }
}
