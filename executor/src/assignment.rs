//! Reads an assignment from outside and says whether this node can take it; pure.

use chassis::ApiError;
use chassis::problem::parse_json;
use domain::NodeId;
use std::collections::BTreeSet;
use wire::assignment::{ASSIGNED_INSTANCES_MAX, AssignedInstance, Assignment, EngineKind};
use wire::problem::Kind;

/// Arguments of a command at most; the kernel's own bound is far above, the message's is not.
const ARGUMENTS_MAX: usize = 1024;
/// Variables of an environment at most.
const VARIABLES_MAX: usize = 1024;

/// Reads an assignment for `node` of `cluster`.
///
/// # Errors
/// 400 when it is no JSON, 422 with pointers when it cannot be meant for this node.
pub fn read(bytes: &[u8], node: &NodeId, cluster: &str) -> Result<Assignment, ApiError> {
    let assignment: Assignment = parse_json(bytes)?;
    let refuse = |pointer: &str, detail: String| {
        let whole = "this node cannot take the assignment; nothing was changed";
        Err(ApiError::new(Kind::Invalid, whole).with_error(pointer, detail))
    };
    if assignment.wire != wire::WIRE_VERSION {
        let ours = wire::WIRE_VERSION;
        return refuse("/wire", format!("this executor speaks version {ours} only; upgrade it"));
    }
    if assignment.cluster != cluster {
        return refuse("/cluster", format!("this node belongs to cluster {cluster}"));
    }
    if assignment.node != *node {
        return refuse("/node", format!("this is node {node}"));
    }
    if assignment.instances.len() > ASSIGNED_INSTANCES_MAX {
        return refuse("/instances", format!("at most {ASSIGNED_INSTANCES_MAX} fit a node"));
    }
    let mut seen = BTreeSet::new();
    for (index, instance) in assignment.instances.iter().enumerate() {
        if !seen.insert(&instance.id) {
            return refuse(&format!("/instances/{index}/id"), "it is there twice".to_owned());
        }
        if let Err((field, detail)) = check(instance) {
            return refuse(&format!("/instances/{index}{field}"), detail);
        }
    }
    Ok(assignment)
}

/// What no engine could run; a fault of one instance refuses the whole, as the manager planned it
/// as one.
fn check(instance: &AssignedInstance) -> Result<(), (&'static str, String)> {
    let run = &instance.run;
    if instance.id.service() != instance.service {
        return Err(("/service", format!("the id belongs to {}", instance.id.service())));
    }
    match instance.engine {
        EngineKind::Process if run.command.first().is_none_or(String::is_empty) => {
            return Err(("/run/command", "a plain process needs a program".to_owned()));
        }
        EngineKind::Docker if run.image.as_deref().is_none_or(str::is_empty) => {
            return Err(("/run/image", "a container needs an image".to_owned()));
        }
        EngineKind::Process | EngineKind::Docker => {}
    }
    let arguments = || run.command.iter().chain(&run.stop_command);
    if arguments().count() > ARGUMENTS_MAX {
        return Err(("/run/command", format!("at most {ARGUMENTS_MAX} arguments")));
    }
    if arguments().any(|a| a.contains('\0')) {
        return Err(("/run/command", "an argument holds a NUL byte".to_owned()));
    }
    if run.env.len() > VARIABLES_MAX {
        return Err(("/run/env", format!("at most {VARIABLES_MAX} variables")));
    }
    let bad_name = |n: &String| n.is_empty() || n.contains(['=', '\0']);
    if run.env.iter().any(|(name, value)| bad_name(name) || value.contains('\0')) {
        return Err((
            "/run/env",
            "a name is empty or holds '=', or a NUL byte is there".to_owned(),
        ));
    }
    if run.port == Some(0) {
        return Err(("/run/port", "0 is no port".to_owned()));
    }
    let path = instance.health.path.as_deref().unwrap_or("/");
    if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(("/health/path", "a path begins with '/' and holds no spaces".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::*;

    fn node() -> NodeId {
        "n-0123456789".parse().unwrap()
    }

    fn faults(change: impl FnOnce(&mut Assignment)) -> (u16, String) {
        let mut assignment = testing::assignment(1, vec![testing::instance("a")]);
        change(&mut assignment);
        let bytes = serde_json::to_vec(&assignment).unwrap();
        match read(&bytes, &node(), "test") {
            Ok(_) => (200, String::new()),
            Err(error) => {
                let pointer = error.problem.errors.first().map(|e| e.pointer.clone());
                (error.problem.status, pointer.unwrap_or_default())
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_pointer() {
        assert_eq!(faults(|_| {}).0, 200);
        type Fault = (fn(&mut Assignment), &'static str);
        let table: [Fault; 11] = [
            (|a| a.wire = 9, "/wire"),
            (|a| a.cluster = "other".to_owned(), "/cluster"),
            (|a| a.node = "n-abcdefghjk".parse().unwrap(), "/node"),
            (|a| a.instances.push(testing::instance("a")), "/instances/1/id"),
            (|a| a.instances[0].service = "b".parse().unwrap(), "/instances/0/service"),
            (|a| a.instances[0].run.command.clear(), "/instances/0/run/command"),
            (|a| a.instances[0].run.command.push("\0".to_owned()), "/instances/0/run/command"),
            (|a| a.instances[0].engine = EngineKind::Docker, "/instances/0/run/image"),
            (
                |a| {
                    a.instances[0].run.env.insert("A=B".to_owned(), String::new());
                },
                "/instances/0/run/env",
            ),
            (|a| a.instances[0].run.port = Some(0), "/instances/0/run/port"),
            (
                |a| a.instances[0].health.path = Some("/a\r\nb".to_owned()),
                "/instances/0/health/path",
            ),
        ];
        for (change, pointer) in table {
            assert_eq!(faults(change), (422, pointer.to_owned()));
        }
    }

    #[test]
    fn what_is_no_json_is_a_bad_request() {
        assert_eq!(read(b"{", &node(), "test").unwrap_err().problem.status, 400);
        assert_eq!(read(b"{}", &node(), "test").unwrap_err().problem.status, 422);
    }

    /// A good message with a few bytes changed: the inputs most likely to get far.
    fn damaged() -> impl Strategy<Value = Vec<u8>> {
        let good = serde_json::to_vec(&testing::assignment(1, vec![testing::instance("a")]));
        let good = good.unwrap();
        let hits = proptest::collection::vec((0..good.len(), any::<u8>(), any::<bool>()), 1..4);
        hits.prop_map(move |hits| {
            let mut bytes = good.clone();
            for (at, byte, cut) in hits {
                let at = at % bytes.len().max(1);
                match bytes.get_mut(at) {
                    Some(_) if cut => bytes.truncate(at),
                    Some(place) => *place = byte,
                    None => bytes.push(byte),
                }
            }
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100_000, ..ProptestConfig::default() })]

        #[test]
        fn no_input_makes_it_panic(
            bytes in prop_oneof![damaged(), proptest::collection::vec(any::<u8>(), 0..64)],
        ) {
            // Either answer is right; what counts is that there is one, and that what is taken
            // is for us.
            if let Ok(taken) = read(&bytes, &node(), "test") {
                prop_assert_eq!(taken.node, node());
                prop_assert!(taken.instances.len() <= ASSIGNED_INSTANCES_MAX);
            }
        }
    }
}
