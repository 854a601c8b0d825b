//! Whom an instance runs as: `name`, `uid`, `name:group` or `uid:gid`, looked up on the node.

/// Numbers of a user and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UserIds {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Finds `user` in the texts of `/etc/passwd` and `/etc/group`.
///
/// # Errors
/// A sentence naming what is missing.
pub fn find(user: &str, passwd: &str, group: &str) -> Result<UserIds, String> {
    let (name, wanted_group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let rows = || passwd.lines().map(|l| l.split(':').collect::<Vec<_>>());
    let row = rows().find(|f| f.len() > 3 && (f[0] == name || f[2] == name));
    let known = row.and_then(|f| Some((f[2].parse().ok()?, f[3].parse().ok()?)));
    let (uid, own_gid) = match (known, name.parse::<u32>()) {
        (Some(ids), _) => ids,
        // A number need not be listed.
        (None, Ok(uid)) => (uid, uid),
        (None, Err(_)) => {
            return Err(format!("this node has no user {name:?}; create it or name another"));
        }
    };
    let gid = match wanted_group {
        None => own_gid,
        Some(text) => match text.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) => group
                .lines()
                .map(|l| l.split(':').collect::<Vec<_>>())
                .find(|f| f.len() > 2 && f[0] == text)
                .and_then(|f| f[2].parse().ok())
                .ok_or_else(|| format!("this node has no group {text:?}"))?,
        },
    };
    Ok(UserIds { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/:/bin/false\nbroken\n";
        let group = "web:x:34:\nlogs:x:50:a,b\n";
        let ids = |uid, gid| Ok(UserIds { uid, gid });
        assert_eq!(find("web", passwd, group), ids(33, 34));
        assert_eq!(find("33", passwd, group), ids(33, 34));
        assert_eq!(find("web:logs", passwd, group), ids(33, 50));
        assert_eq!(find("1000:1001", passwd, group), ids(1000, 1001));
        assert_eq!(find("1000", passwd, group), ids(1000, 1000));
        assert!(find("nobody-here", passwd, group).unwrap_err().contains("nobody-here"));
        assert!(find("web:none", passwd, group).is_err());
    }
}
