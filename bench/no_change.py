from .measuring import Result
from .stage import Stage
def run(stage: Stage, runs: int) -> Result:
    raise NotImplementedError
