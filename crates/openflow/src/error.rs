//! What a switch refuses, and how it is told.

use std::fmt;
use std::io;

/// OpenFlow's error, by its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfError {
    /// 0xffff: of an experimenter, whose `code` says it all.
    pub kind: u16,
    pub code: u16,
    /// 0 unless it is one's.
    pub experimenter: u32,
}

/// Why changes weren't made.
#[derive(Debug)]
pub enum Refused {
    /// Nothing was changed: the switch doesn't take this one.
    Change {
        /// Which of the changes.
        index: usize,
        /// The change, in ovs-ofctl's words.
        change: String,
        error: OfError,
    },
    /// Nothing was changed: the switch doesn't take any now.
    Bundle { error: OfError },
    /// The connection broke. If that was at the end, all may be changed: what the switch has is to be read back.
    Lost(io::Error),
}

impl OfError {
    /// As the specifications call it.
    #[rustfmt::skip]
    pub fn name(self) -> Option<&'static str> {
        Some(match (self.kind, self.code) {
            (0, 0) => "OFPHFC_INCOMPATIBLE",
            (1, 0) => "OFPBRC_BAD_VERSION",
            (1, 1) => "OFPBRC_BAD_TYPE",
            (1, 2) => "OFPBRC_BAD_STAT",
            (1, 3) => "OFPBRC_BAD_EXPERIMENTER",
            (1, 4) => "OFPBRC_BAD_SUBTYPE",
            (1, 5) => "OFPBRC_EPERM",
            (1, 6) => "OFPBRC_BAD_LEN",
            (1, 9) => "OFPBRC_BAD_TABLE_ID",
            (1, 10) => "OFPBRC_IS_SLAVE",
            (1, 11) => "OFPBRC_BAD_PORT",
            (1, 13) => "OFPBRC_MULTIPART_BUFFER_OVERFLOW",
            (2, 0) => "OFPBAC_BAD_TYPE",
            (2, 1) => "OFPBAC_BAD_LEN",
            (2, 2) => "OFPBAC_BAD_EXPERIMENTER",
            (2, 3) => "OFPBAC_BAD_EXP_TYPE",
            (2, 4) => "OFPBAC_BAD_OUT_PORT",
            (2, 5) => "OFPBAC_BAD_ARGUMENT",
            (2, 6) => "OFPBAC_EPERM",
            (2, 7) => "OFPBAC_TOO_MANY",
            (2, 10) => "OFPBAC_MATCH_INCONSISTENT",
            (2, 11) => "OFPBAC_UNSUPPORTED_ORDER",
            (2, 12) => "OFPBAC_BAD_TAG",
            (2, 13) => "OFPBAC_BAD_SET_TYPE",
            (2, 14) => "OFPBAC_BAD_SET_LEN",
            (2, 15) => "OFPBAC_BAD_SET_ARGUMENT",
            (3, 0) => "OFPBIC_UNKNOWN_INST",
            (3, 1) => "OFPBIC_UNSUP_INST",
            (3, 2) => "OFPBIC_BAD_TABLE_ID",
            (3, 7) => "OFPBIC_BAD_LEN",
            (3, 9) => "OFPBIC_DUP_INST",
            (4, 0) => "OFPBMC_BAD_TYPE",
            (4, 1) => "OFPBMC_BAD_LEN",
            (4, 5) => "OFPBMC_BAD_WILDCARDS",
            (4, 6) => "OFPBMC_BAD_FIELD",
            (4, 7) => "OFPBMC_BAD_VALUE",
            (4, 8) => "OFPBMC_BAD_MASK",
            (4, 9) => "OFPBMC_BAD_PREREQ",
            (4, 10) => "OFPBMC_DUP_FIELD",
            (5, 0) => "OFPFMFC_UNKNOWN",
            (5, 1) => "OFPFMFC_TABLE_FULL",
            (5, 2) => "OFPFMFC_BAD_TABLE_ID",
            (5, 3) => "OFPFMFC_OVERLAP",
            (5, 4) => "OFPFMFC_EPERM",
            (5, 6) => "OFPFMFC_BAD_COMMAND",
            (5, 7) => "OFPFMFC_BAD_FLAGS",
            (17, 0) => "OFPBFC_UNKNOWN",
            (17, 2) => "OFPBFC_BAD_ID",
            (17, 3) => "OFPBFC_BUNDLE_EXIST",
            (17, 4) => "OFPBFC_BUNDLE_CLOSED",
            (17, 5) => "OFPBFC_OUT_OF_BUNDLES",
            (17, 12) => "OFPBFC_MSG_TOO_MANY",
            (17, 13) => "OFPBFC_MSG_FAILED",
            (17, 14) => "OFPBFC_TIMEOUT",
            (0xffff, 2) => "NXBRC_NXM_INVALID",
            (0xffff, 3) => "NXBRC_NXM_BAD_TYPE",
            (0xffff, 4) => "NXBRC_MUST_BE_ZERO",
            (0xffff, 10) => "NXBRC_UNENCODABLE_ERROR",
            (0xffff, 11) => "NXBAC_MUST_BE_ZERO",
            (0xffff, 16) => "NXTTMFC_BAD_COMMAND",
            (0xffff, 17) => "NXTTMFC_BAD_OPT_LEN",
            (0xffff, 18) => "NXTTMFC_BAD_FIELD_IDX",
            (0xffff, 19) => "NXTTMFC_TABLE_FULL",
            (0xffff, 20) => "NXTTMFC_ALREADY_MAPPED",
            (0xffff, 21) => "NXTTMFC_DUP_ENTRY",
            (0xffff, 37) => "NXFMFC_INVALID_TLV_FIELD",
            (0xffff, 38) => "NXTTMFC_INVALID_TLV_DEL",
            _ => return None,
        })
    }

    fn explanation(self) -> &'static str {
        match (self.kind, self.code) {
            (2, 10) => " (the match lacks what an action needs)",
            (4, 6) => " (a field that it doesn't know)",
            (4, 9) => " (a field lacks another one that has to be matched, too)",
            (1, 10) => " (another controller is the master)",
            (5, 1) => " (the table is full)",
            (0xffff, 37) => " (an option of tunnels that the TLV map lacks)",
            _ => "",
        }
    }
}

impl fmt::Display for OfError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name}{}", self.explanation()),
            None => write!(
                f,
                "OpenFlow error {}, {} (experimenter {:#x})",
                self.kind, self.code, self.experimenter
            ),
        }
    }
}

impl std::error::Error for OfError {}

impl From<OfError> for io::Error {
    fn from(error: OfError) -> Self {
        io::Error::other(error)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Refused::Change {
                index,
                change,
                error,
            } => write!(
                f,
                "the switch refused change {index}, and so all: {error}: {change}"
            ),
            Refused::Bundle { error } => write!(f, "the switch refused all changes: {error}"),
            Refused::Lost(_) => write!(
                f,
                "the connection to the switch was lost while changing it; it may have changed"
            ),
        }
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Refused::Change { error, .. } | Refused::Bundle { error } => Some(error),
            Refused::Lost(error) => Some(error),
        }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Refused::Lost(error)
    }
}
