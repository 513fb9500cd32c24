"""Find the fastest layout of a network on this machine by measuring: `worker tune`; `worker start` follows the result.

layouts                 which layouts to try (pure functions)
sweep                   measures them, all core sets of a layout at the same time
worker.node.tuned_plan  stores the choice, with the machine and the network it was made for
"""
