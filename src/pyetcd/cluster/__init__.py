"""Who is in the cluster, which versions it has agreed on, and how a new one begins.

Everything here is pure or writes only to the backend's buckets; nothing waits, and time and randomness are
handed in.
"""
