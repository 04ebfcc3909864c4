-- KEYS  who has the content
-- ARGV  replica, remember (ms), most that have it
hold(KEYS[1], ARGV[1], math.floor(micros() / 1000), ARGV[2], ARGV[3])
return 1
