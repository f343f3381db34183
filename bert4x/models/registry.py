"""`register("mine")` of earlier versions: `bert4x.register_family` with the names given."""

from bert4x.families import register_family


def register(*names: str):
    """Class decorator: make a class known under these names; the first is its own."""

    def decorate(cls):
        cls.model_name, cls.aliases = names[0], names[1:]
        return register_family(cls)

    return decorate
