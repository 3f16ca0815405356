//! Documents: the drop reasons are the code's, and links lead somewhere.

use crate::repository::Repository;
use crate::{Complaint, complaint};
use model::DropReason;
use std::collections::BTreeSet;

const REASONS: &str = "docs/drop-reasons.md";

/// Rows begin with the number and the name: | 1 | `not-ready` |.
pub(crate) fn drop_reasons(text: &str) -> Vec<Complaint> {
    let documented: BTreeSet<(u8, &str)> = text.lines().filter_map(row).collect();
    let real: BTreeSet<(u8, &str)> = DropReason::ALL
        .iter()
        .map(|reason| (reason.number(), reason.name()))
        .collect();
    let missing = real.difference(&documented).map(|(number, name)| {
        complaint(REASONS, format!("drop reason {number} `{name}` has no row"))
    });
    let unknown = documented.difference(&real).map(|(number, name)| {
        complaint(
            REASONS,
            format!("there is no drop reason {number} `{name}`"),
        )
    });
    missing.chain(unknown).collect()
}

fn row(line: &str) -> Option<(u8, &str)> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let number = cells.next()?.parse().ok()?;
    let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
    Some((number, name))
}

/// Links to files and to headings; those to the world aren't followed.
pub(crate) fn links(repository: &Repository) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (path, text) in &repository.texts {
        if !path.ends_with(".md") {
            continue;
        }
        for (line, target) in targets(text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if let Some(wrong) = wrong(repository, path, target) {
                complaints.push(complaint(format!("{path}:{line}"), wrong));
            }
        }
    }
    complaints
}

fn wrong(repository: &Repository, from: &str, target: &str) -> Option<String> {
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let file = if file.is_empty() {
        from.to_owned()
    } else {
        resolve(from, file)
    };
    let directory = format!("{}/", file.trim_end_matches('/'));
    let exists = repository.files.contains(&file)
        || repository
            .files
            .iter()
            .any(|path| path.starts_with(&directory));
    if !exists {
        return Some(format!("the link to `{target}` leads to no file"));
    }
    let found = heading.is_empty() || headings(repository.text(&file)).contains(heading);
    (!found).then(|| format!("the link to `{target}` leads to no heading of {file}"))
}

fn resolve(from: &str, file: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in file.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// `](target)` outside code, with the line's number.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for prose in line.split('`').step_by(2) {
            let links = prose.split("](").skip(1);
            found.extend(links.filter_map(|rest| Some((index + 1, rest.split_once(')')?.0))));
        }
    }
    found
}

/// As the usual renderers name them: small letters, words joined by `-`.
fn headings(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| line.starts_with('#'));
    lines
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_documented_by_number_and_name() {
        let rows: String = DropReason::ALL
            .iter()
            .map(|reason| format!("| {} | `{}` | why |\n", reason.number(), reason.name()))
            .collect();
        assert_eq!(drop_reasons(&rows), []);
        let renamed = rows.replace("`no-rule`", "`norule`");
        let texts: Vec<String> = drop_reasons(&renamed).into_iter().map(|c| c.text).collect();
        assert_eq!(
            texts,
            [
                "drop reason 14 `no-rule` has no row",
                "there is no drop reason 14 `norule`"
            ]
        );
    }

    fn check_link(target: &str, right: bool) {
        let mut repository = Repository::default();
        let here = format!("# Here\n\nSee [it]({target}). Code: `[x](nowhere)`.\n");
        for (path, text) in [
            ("docs/a.md", here.as_str()),
            ("docs/b.md", "## To the letter\n"),
        ] {
            repository.files.insert(path.to_owned());
            repository.texts.insert(path.to_owned(), text.to_owned());
        }
        let complaints = links(&repository);
        assert_eq!(complaints.is_empty(), right, "{target}: {complaints:?}");
    }

    #[test]
    fn links_lead_to_files_directories_and_headings() {
        check_link("b.md", true);
        check_link("../docs/b.md#to-the-letter", true);
        check_link("../docs", true);
        check_link("#here", true);
        check_link("https://example.org/nothing", true);
        check_link("c.md", false);
        check_link("b.md#by-heart", false);
        check_link("#there", false);
    }
}
