"""The words on diagrams, in English and Chinese."""

from typing import Literal

Language = Literal["en", "zh"]

_CHINESE = {
    "convolution": "卷积",
    "linear": "线性卷积",
    "max pool": "最大池化",
    "average pool": "平均池化",
    "global average pool": "全局平均池化",
    "response norm": "局部响应归一化",
    "fully connected": "全连接",
    "filter concatenation": "通道拼接",
    "sum": "相加",
    "previous layer": "上一层",
    "input": "输入",
    "softmax": "softmax",
    "dropout": "dropout",
    "channels": "通道",
    "auxiliary classifier": "辅助分类器",
    "feature map": "特征图",
    "parameters": "参数",
    "1×1 convolution": "1×1 卷积",
    "larger convolution": "更大的卷积",
    "(by share of channels)": "（按通道数占比）",
    "pool": "池化",
    "no parameters": "无参数",
}


def say(text: str, language: Language) -> str:
    """One of the known words in `language`; what is not known stays as it is."""
    return _CHINESE.get(text, text) if language == "zh" else text
