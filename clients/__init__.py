"""Holds the Flower ClientApp: who a client is, what it promises, and what it does with each kind of message."""
