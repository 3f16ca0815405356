//! What a machine can check of the house's rules: `make lint` and `make test` fail on a complaint.
//!
//! Place on the line: none; a tool for developers.
//! Knows nothing of: what the code means. Each check is a function of texts; `Repository` reads them.

mod crates;
mod documents;
mod modules;
mod repository;
mod sources;

pub use repository::Repository;
use std::fmt;

/// Something in the repository is against a rule of the house.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint {
    /// Where: a file, perhaps with a line, or a crate.
    pub place: String,
    pub text: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// All complaints about a repository, sorted by place.
pub fn check(repository: &Repository) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    complaints.extend(crates::check(
        repository.text("ARCHITECTURE.md"),
        &repository.packages,
    ));
    complaints.extend(modules::check(repository));
    complaints.extend(sources::check(repository));
    complaints.extend(documents::drop_reasons(
        repository.text("docs/drop-reasons.md"),
    ));
    complaints.extend(documents::links(repository));
    complaints.sort();
    complaints
}

fn complaint(place: impl Into<String>, text: impl Into<String>) -> Complaint {
    Complaint {
        place: place.into(),
        text: text.into(),
    }
}
