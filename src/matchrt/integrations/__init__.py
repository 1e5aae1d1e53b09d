"""matchrt behind the interfaces of other libraries: one file for each, imported by whoever uses that library.

They need torch, which these libraries need anyway, and none of them is a dependency of matchrt.
"""
