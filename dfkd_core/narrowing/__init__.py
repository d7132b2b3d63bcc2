"""Narrowing (torch-free): which channels of a plan hang together, what fewer of them cost, and the narrower plan.

The stages run in this order:
- `trace` follows the channels of every value through the steps of a plan, by one rule for each kind of operator;
- `groups` sorts the channels into groups whose members are interchangeable;
- `figures` counts parameters, multiply-adds and bytes of a narrower copy from the groups alone; it needs no NumPy;
- `choice` scores the channels and chooses those that stay; `cut` makes the narrower plan.

The first three run where a teacher is inspected, the last two where the student is made. All of them read the same
groups, so a student has exactly the size that was said before the job.
"""
