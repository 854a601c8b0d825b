//! Keeps the cheapest set of nodes that holds the instances, within the cap.
