pub(crate) fn check(_b: &[u8]) {}
