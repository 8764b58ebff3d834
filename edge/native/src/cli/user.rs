//! Who runs a command, for the audit log.

/// Who runs this command, by name where the system knows one.
pub(crate) fn user() -> String {
    let id = rustix::process::getuid().as_raw();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_of(id, &accounts).unwrap_or_else(|| format!("uid-{id}"))
}

fn name_of(id: u32, accounts: &str) -> Option<String> {
    let id = id.to_string();
    let line = accounts.lines().find(|line| line.split(':').nth(2) == Some(&id))?;
    let name = line.split(':').next()?;
    let is_plain = (1..=64).contains(&name.len()) && !name.chars().any(char::is_control);
    is_plain.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_names() {
        let accounts = "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n:x:7:7::/:\n";
        assert_eq!(name_of(0, accounts).as_deref(), Some("root"));
        assert_eq!(name_of(1000, accounts).as_deref(), Some("me"));
        for unknown in [1, 100, 7] {
            assert_eq!(name_of(unknown, accounts), None, "{unknown}");
        }
    }
}
