//! What the embedded engine tells the agent before it becomes PID 1.
