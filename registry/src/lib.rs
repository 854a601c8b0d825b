//! The durable record of services, instances, nodes, decisions and money.
