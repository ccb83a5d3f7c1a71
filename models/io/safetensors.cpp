// placeholder until models/io lands
