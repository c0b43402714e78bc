"""`fedtsd bench`: how fast engines are, over a plain centralized loop on the same machine.

The parent starts one child process per thing to be measured and lets one of them work at a time, so
that measurements alternate: machines drift by up to two times within an hour, and only ratios of
neighbouring measurements mean something.
"""
