"""Layouts of toolkits in which several families are published: one file a toolkit."""
