//! Who asks, and what for whom may be seen.

use crate::ids;
use crate::refused::Refused;
use model::ProjectId;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub user: String,
    pub project: ProjectId,
    pub role: Role,
}

/// Each may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Reader,
    Member,
    /// Sees and changes all projects' objects.
    Admin,
}

impl Caller {
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// Whose a new object is to be: the caller's own project's, unless an admin says otherwise.
    pub(crate) fn project_for(&self, asked: Option<&ProjectId>) -> Result<ProjectId, Refused> {
        let project = asked.unwrap_or(&self.project);
        if !self.owns(project) {
            return Err(Refused::ForeignProject);
        }
        if !ids::is_id(project.as_str()) {
            return Err(Refused::bad_project(project.as_str()));
        }
        Ok(project.clone())
    }

    /// Refused to readers; `action` is the one that the policy would name.
    pub(crate) fn must_write(&self, action: &str) -> Result<(), Refused> {
        match self.may_write() {
            true => Ok(()),
            false => Err(Refused::not_authorized(action)),
        }
    }

    pub fn may_write(&self) -> bool {
        self.role >= Role::Member
    }

    /// What is another project's isn't there for who is no admin.
    pub fn owns(&self, project: &ProjectId) -> bool {
        self.is_admin() || self.project == *project
    }
}
